"""The script that train.py is compared with: as a competition's notebooks write it, in one file, with the usual packages.

    python benchmarks/notebook_style.py --images FOLDER --model mobilenetv2_100 [--weights FILE] [--size 128] …

FOLDER holds CLASS.NUMBER.jpg. One stratified split, cv2 + albumentations + Normalize + ToTensorV2 in two workers, a plain loop
with AdamW and cosine steps. It prints val_accuracy after each epoch. Nothing in it is slow on purpose, and nothing is tuned.
"""

import argparse
import sys
from pathlib import Path

import albumentations as A
import cv2
import timm
import torch
from albumentations.pytorch import ToTensorV2
from safetensors.torch import load_file
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import src.models.cifar_net  # noqa: F401  the small network of the lectures, under timm's roof

HALVES = (0.5, 0.5, 0.5)


class Pictures(Dataset):
    def __init__(self, paths: list[Path], transform: A.Compose) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        image = cv2.cvtColor(cv2.imread(str(self.paths[row])), cv2.COLOR_BGR2RGB)
        return self.transform(image=image)["image"], int(self.paths[row].name.startswith("dog"))


def augmented(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> A.Compose:
    return A.Compose(
        [
            A.RandomResizedCrop((size, size), scale=(0.5, 1.0), p=1),
            A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=0.5),
            A.HorizontalFlip(p=0.5),
            A.Normalize(mean=mean, std=std),
            ToTensorV2(),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    asked = parser.parse_args()

    paths = sorted(asked.images.glob("*.jpg"))
    labels = [path.name.startswith("dog") for path in paths]
    train, held_out = train_test_split(paths, test_size=0.2, stratify=labels, random_state=0)
    fitted = A.Compose([A.Resize(asked.size, asked.size), A.Normalize(mean=HALVES, std=HALVES), ToTensorV2()])
    loader = DataLoader(
        Pictures(train, augmented(asked.size, HALVES, HALVES)), asked.batch, shuffle=True, num_workers=2, drop_last=True
    )
    validation = DataLoader(Pictures(held_out, fitted), 2 * asked.batch, num_workers=2)

    model = timm.create_model(asked.model, num_classes=2, **({"pad_type": "same"} if asked.weights else {}))
    if asked.weights:
        state = {name: tensor for name, tensor in load_file(asked.weights).items() if not name.startswith("classifier")}
        model.load_state_dict(state, strict=False)
    if asked.model != "cifar_net":  # a head that starts small, as train.py's does: timm's own begins at a loss of 13
        torch.nn.init.zeros_(model.get_classifier().weight)
        torch.nn.init.zeros_(model.get_classifier().bias)
    optimizer = torch.optim.AdamW(model.parameters(), lr=asked.lr, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, asked.epochs * len(loader))
    criterion = nn.CrossEntropyLoss()
    for epoch in range(asked.epochs):
        model.train()
        for images, target in loader:
            optimizer.zero_grad()
            loss = criterion(model(images), target)
            loss.backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for images, target in validation:
                right += (model(images).argmax(dim=1) == target).sum().item()
        print(f"epoch {epoch + 1}  val_accuracy {right / len(held_out):.4f}", flush=True)


if __name__ == "__main__":
    main()
