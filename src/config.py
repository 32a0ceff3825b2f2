"""Every knob: type, default, unit, reason. The one file that reads YAML.

An experiment is a short YAML file over the defaults below; it may name a `base` to start from. The command line
overrides any knob (`--train.epochs 3`). Both go through the same pydantic models, so a typo or a bad value is told in
the same words wherever it stands. Imports nothing heavy: `--help` and every mistyped knob answer in well under a second.
"""

import difflib
import functools
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from src.errors import UserError
from src.views import View, forbidden, keeping_views, read_views

REPOSITORY = Path(__file__).resolve().parent.parent
BUILT_IN = REPOSITORY / "src" / "competitions"
FULL = "full"  # the fold that trains on all rows
LARGEST, DEEPEST, MOST_VALUES = 4_000_000, 32, 500_000  # bytes, levels and values of a YAML file
LONGEST_WORD = 200  # of which a nearest name is looked for
FAULTS = 5  # that are told at once
UNPRINTABLE = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlevel = 3


def short(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    return _repr.repr(value)


def fits(value: int) -> bool:
    """Whether a whole number has 64 bits: what is larger can't be told in a message, nor counted to."""
    return -(2**63) <= value < 2**63


class ConfigError(UserError):
    """A knob is misspelt or has a bad value. The message names the place, the value and what is allowed."""


def knob(default: Any, help: str, *, identity: bool = True, **limits: Any) -> Any:
    """A field with its one-line help. `identity=False`: may differ between folds of one run, as it changes no result."""
    return Field(default, description=help, json_schema_extra={"identity": identity}, **limits)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none_as_the_help_spells_it(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if is_optional(field)}
        return {key: None if value == "none" and key in optional else value for key, value in given.items()}

    @model_validator(mode="after")
    def _within_64_bits(self) -> "Section":
        for key in type(self).model_fields:
            if isinstance(value := getattr(self, key), int) and not fits(value):
                raise ValueError(f"{key}: a number beyond 64 bits")
        return self


def is_optional(field: Any) -> bool:
    return type(None) in get_args(field.annotation)


class CompetitionConfig(Section):
    """What Kaggle gives and wants. Built-in ones stand in src/competitions/*.yaml; any other can be written out in full."""

    name: str = knob(..., "name of the competition; its data lies in data/NAME/", pattern=r"^[\w-]+$")
    slug: str | None = knob(None, "Kaggle's name for it, as in kaggle.com/c/SLUG")
    train_csv: str | None = knob(None, "table of the training rows; none: the files that match train_images")
    test_csv: str | None = knob(None, "table of the test rows; none: the files that match test_images")
    sample_csv: str | None = knob(None, "sample submission: its rows and their order are the submission's")
    solution_csv: str | None = knob(None, "true labels of the test rows, where they are known")
    id_column: str = knob("id", "column of the row's id")
    label_column: str = knob("label", "column of the class")
    group_column: str | None = knob(None, "column of groups that must not be split between folds (a patient, a shop)")
    train_images: str = knob("train/{id}.jpg", "where a training row's image lies; {id}, {label} or any column")
    test_images: str = knob("test/{id}.jpg", "where a test row's image lies")
    classes: tuple[str, ...] = knob((), "class names in the order of the logits; none: the sorted labels of the table")
    metric: Literal["accuracy", "log_loss", "macro_f1", "roc_auc", "quadratic_kappa"] = knob(
        "accuracy", "the competition's own metric"
    )
    submission_columns: tuple[str, ...] = knob((), "header of the submission; none: id and label column (or the classes)")
    submission_values: Literal["label", "probability", "probabilities"] = knob(
        "label", "what a row holds: the class, one probability, or one probability a class"
    )
    submission_labels: tuple[str, ...] = knob((), "what is written for each class; none: the class names")
    positive: str | None = knob(None, "the class whose probability is handed in")
    label_preserving: tuple[Literal["hflip", "vflip", "turns"], ...] = knob(
        (), "what keeps an image's label, for augmentation and TTA: mirrored, upside down, quarter turns"
    )
    expected_train: int | None = knob(None, "training rows on Kaggle; a part of them is stated, not refused", gt=0)
    expected_test: int | None = knob(None, "test rows on Kaggle", gt=0)

    @model_validator(mode="after")
    def _submission_fits(self) -> "CompetitionConfig":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"classes: named twice: {', '.join(sorted({c for c in self.classes if self.classes.count(c) > 1}))}"
            )
        if self.submission_values == "probability" and self.positive is None:
            raise ValueError("positive: name the class whose probability is handed in")
        if self.positive is not None and self.classes and self.positive not in self.classes:
            raise ValueError(f"positive: {self.positive!r} is not among the classes {', '.join(self.classes)}")
        if self.submission_values != "probabilities" and self.submission_columns and len(self.submission_columns) != 2:
            raise ValueError(f"submission_columns: needs two columns, the id and the {self.submission_values}")
        if self.classes and len(self.submission_labels) not in (0, len(self.classes)):
            raise ValueError(f"submission_labels: {len(self.submission_labels)} labels for {len(self.classes)} classes")
        if self.submission_values == "probabilities" and self.classes:
            wanted = len(self.classes) + 1
            if len(self.submission_columns) not in (0, wanted):
                raise ValueError(f"submission_columns: needs {wanted} columns, the id and the classes")
        if self.metric == "roc_auc" and self.submission_values == "label":
            raise ValueError("submission_values: ROC AUC ranks probabilities; choose probability or probabilities")
        if self.train_csv is None and "{label}" not in self.train_images:
            raise ValueError("train_images: without a train_csv the label must stand in the path, as in train/{label}/{id}.jpg")
        for name in ("train_images", "test_images"):
            if not re.search(r"\{\w+\}", getattr(self, name)):
                raise ValueError(f"{name}: every row would have the same image; put {{id}} or a column into the path")
        return self


class ModelConfig(Section):
    name: str = knob(
        "resnet18", "backbone: any of timm's models, or the lectures' own: alexnet, googlenet, plain34, mnist_net, …"
    )
    weights: str = knob("hub", "pretrained weights: hub, none, or a .safetensors/.pth file")
    image_size: int | None = knob(None, "height and width fed to the model, pixels; none: the model's own", ge=8, le=4096)
    test_size: int | None = knob(
        None, "pixels at validation and prediction; none: image_size; an eighth more often gains: crops enlarge objects",
        ge=8, le=4096,
    )  # fmt: skip
    mean: tuple[float, float, float] | None = knob(None, "per channel, in [0, 1]; none: the model's own")
    std: tuple[float, float, float] | None = knob(None, "per channel, in [0, 1]; none: the model's own")
    dropout: float = knob(0.0, "dropout before the head, a probability", ge=0, lt=1)
    drop_path: float = knob(0.0, "stochastic depth, a probability; for models that have it", ge=0, lt=1)
    kwargs: tuple[str, ...] = knob((), "further arguments of timm.create_model, as in pad_type=same")

    @field_validator("kwargs")
    @classmethod
    def _pairs(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            key, _, value = pair.partition("=")
            if not key.isidentifier() or "=" not in pair:
                raise ValueError(f"{short(pair)} is not of the form key=value")
            try:
                parse_yaml(value)
            except yaml.YAMLError:
                raise ValueError(f"{short(pair)}: what follows = is not a value that YAML can read") from None
        return pairs

    @field_validator("std")
    @classmethod
    def _positive_std(cls, std: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if std is not None and min(std) <= 0:
            raise ValueError("every channel's std must be above 0: the image is divided by it")
        return std

    def arguments(self) -> dict[str, Any]:
        """kwargs as Python values: ("pad_type=same",) → {"pad_type": "same"}."""
        return {key: parse_yaml(value) for key, _, value in (pair.partition("=") for pair in self.kwargs)}


REFUSED, KEPT = "refuse", "keep"
POLICIES = {  # what becomes of the audit's findings in the training rows (src/data/audit.py says what each kind means)
    **dict.fromkeys(("empty", "not_an_image", "unreadable", "truncated", "outside_root", "alpha_only"), REFUSED),
    **dict.fromkeys(
        ("grey_tail", "damaged", "leak", "label_conflict", "exact_duplicate", "near_duplicate", "shared_path"), KEPT
    ),
    **dict.fromkeys(("label_spelling", "id_spelling", "one_colour", "tiny", "extreme_aspect", "cmyk", "sixteen_bit"), KEPT),
    **dict.fromkeys(("mixed_depth", "animated", "exif_rotated", "wrong_suffix"), KEPT),
}


class DataConfig(Section):
    root: str | None = knob(
        None, "folder of the competition's files; none: data/NAME, then Kaggle's /kaggle/input/SLUG", identity=False
    )
    folds: int = knob(5, "number of folds", ge=2, le=100)
    seed: int = knob(0, "seed of the split into folds", ge=0, lt=2**32)
    missing: Literal["refuse", "drop"] = knob("refuse", "training rows without an image: stop, or leave them out and say so")
    audit: bool = knob(True, "look at every image before training: faults, and duplicates, which then share a fold")
    policy: tuple[str, ...] = knob(
        (), "what becomes of training rows with a finding, as in grey_tail=drop: refuse, drop or keep; the rest by default"
    )
    resize: Literal["crop", "squash", "pad"] = knob(
        "crop", "to the model's square: cut the middle out, squash the picture, or pad it with black"
    )
    augmentation: Literal["none", "light", "medium", "strong"] = knob("medium", "recipe in src/data/augmentation.py")
    cache: bool = knob(
        False, "keep the decoded pictures in one file beside the data: loads faster; crops come from pictures shrunk beforehand"
    )
    workers: int | None = knob(None, "processes that load images; none: from the cores at hand", ge=0, le=256, identity=False)
    rows: int | None = knob(None, "only this many training rows, drawn by class, for trying things out", ge=2)

    @field_validator("policy")
    @classmethod
    def _known_policies(cls, policy: tuple[str, ...]) -> tuple[str, ...]:
        for entry in policy:
            kind, _, what = entry.partition("=")
            if kind not in POLICIES:
                raise ValueError(
                    f"{kind!r} is no kind of finding{nearest(kind, list(POLICIES)) or '; those are ' + ', '.join(POLICIES)}"
                )
            if what not in (REFUSED, "drop", KEPT):
                raise ValueError(f"{entry!r}: choose refuse, drop or keep, as in {kind}=drop")
        return policy

    def policies(self) -> dict[str, str]:
        """Each kind of finding with what becomes of its training rows."""
        return POLICIES | dict(entry.split("=") for entry in self.policy)


class TrainConfig(Section):
    epochs: int = knob(10, "passes over the training rows; 0 with head: probe is the linear probe alone", ge=0)
    batch_size: int = knob(64, "images in a step of one process; torchrun's N processes take N times as many", ge=1)
    lr: float = knob(1e-3, "peak learning rate of the head", gt=0, le=100)
    backbone_lr_scale: float = knob(1.0, "the backbone learns at lr times this", gt=0, le=1)
    layer_decay: float = knob(1.0, "each layer below the head learns at this times the one above; 1: off", gt=0, le=1)
    weight_decay: float = knob(0.05, "of weights, not of biases and norms", ge=0)
    optimizer: str = knob("adamw", "any of timm's optimisers: adamw, sgd, lamb, …")
    momentum: float = knob(0.9, "of sgd and its kin", ge=0, lt=1)
    warmup: float = knob(0.05, "share of the steps in which the learning rate rises to its peak", ge=0, lt=1)
    final_lr: float = knob(0.01, "learning rate at the end, as a share of the peak (cosine)", ge=0, le=1)
    image_sizes: tuple[int, ...] = knob(
        (), "pixels to train at in turn, each for as many epochs; 128 160 192: faster, overfits less; none: model.image_size"
    )
    loss: Literal["cross_entropy", "focal"] = knob("cross_entropy", "focal: easy images count less; for rare classes")
    focal_gamma: float = knob(2.0, "how much less: (1 - p) to this power (Lin 2017)", gt=0, le=10)
    label_smoothing: float = knob(0.0, "share of a label given to all classes alike; for noisy labels", ge=0, lt=1)
    class_weights: float = knob(
        0.0, "1: all classes' losses weigh alike, 0.5: halfway; for macro F1 and long tails, not for log loss", ge=0, le=1
    )
    balanced_sampling: float = knob(
        0.0, "the same power for how often a row is drawn; an epoch keeps its length", ge=0, le=1
    )  # fmt: skip
    clip_grad: float | None = knob(None, "largest norm of the gradient; none: not clipped", gt=0)
    accumulate: int = knob(1, "batches whose gradients are added up before a step", ge=1)
    ema: float = knob(0.0, "average the weights over about this share of the run's steps; 0: off", ge=0, lt=1)
    average_epochs: int = knob(
        0,
        "average the weights of this many last epochs, and measure BatchNorm's statistics anew (SWA); 0: off",
        ge=0,
    )
    mixup: float = knob(0.0, "alpha of mixup; 0: off", ge=0)
    cutmix: float = knob(0.0, "alpha of cutmix; 0: off", ge=0)
    head: Literal["random", "probe"] = knob(
        "random", "how the head starts: probe: as the logistic regression on the frozen backbone's features"
    )
    probe_strength: float | None = knob(
        None, "C of that regression, on features of deviation 1; none: chosen by cross-validation in the training rows", gt=0
    )
    freeze: Literal["none", "norm", "backbone"] = knob(
        "none", "what does not learn: nothing, the BatchNorm statistics, or everything below the head"
    )
    frozen_epochs: int | None = knob(
        None, "freeze for this many epochs only, then let everything learn: the head settles first; none: throughout", ge=0
    )
    grad_checkpointing: bool = knob(False, "compute activations twice instead of keeping them: less GPU memory, a third slower")
    pseudo_labels: str | None = knob(
        None, "runs/NAME, trained and predicted: each fold also learns from the test rows as that run's same fold labels them"
    )
    pseudo_confidence: float = knob(0.95, "least probability of a test row's label for it to be learned from", ge=0, lt=1)
    keep: Literal["last", "best"] = knob(
        "last", "the fold's model: the last epoch's, or the best one by its own validation rows (flatters the OOF score)"
    )
    seed: int = knob(0, "seed of weights, order, augmentation and dropout", ge=0, lt=2**32)
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps", identity=False)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = knob("auto", "auto: bf16 where the GPU has it, else fp16; fp32 on CPU")
    compile: bool = knob(False, "torch.compile the model: a minute at the start, then faster steps, mostly on GPUs")
    channels_last: bool = knob(True, "memory format of images and weights; faster for convolutions on CPU and GPU alike")
    checkpoint_minutes: float = knob(10.0, "save the state this often, besides at the end of every epoch", gt=0, identity=False)
    max_minutes: float | None = knob(
        None, "stop in time, with a usable model and a state to resume from; Kaggle's kernels end after 9 or 12 hours", gt=0,
        identity=False,
    )  # fmt: skip
    steps_per_epoch: int | None = knob(None, "cut each epoch after this many steps, for trying things out", ge=1)

    @model_validator(mode="after")
    def _zero_epochs_need_a_probe(self) -> "TrainConfig":
        if self.epochs == 0 and self.head != "probe":
            raise ValueError("epochs: 0 trains nothing; with head: probe it is the linear probe alone")
        return self

    @model_validator(mode="after")
    def _one_average(self) -> "TrainConfig":
        if self.ema and self.average_epochs:
            raise ValueError("average_epochs: ema averages the weights already; set one of the two to 0")
        if self.average_epochs > max(1, self.epochs):
            raise ValueError(f"average_epochs: {self.average_epochs} of {self.epochs} epochs can't be averaged")
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "TrainConfig":
        if self.frozen_epochs is not None and self.freeze == "none":
            raise ValueError("frozen_epochs: has no effect without freeze: backbone or norm")
        if len(self.image_sizes) > max(1, self.epochs):
            raise ValueError(f"image_sizes: {len(self.image_sizes)} sizes need as many epochs, not {self.epochs}")
        if self.image_sizes and not 8 <= min(self.image_sizes) <= max(self.image_sizes) <= 4096:
            raise ValueError("image_sizes: must be from 8 to 4096 pixels")
        return self

    @model_validator(mode="after")
    def _mixing_needs_pairs(self) -> "TrainConfig":
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(f"batch_size: mixup and cutmix mix pairs, so it must be even, not {self.batch_size}")
        return self


class TrackingConfig(Section):
    mode: Literal["auto", "online", "offline", "disabled"] = knob(
        "auto", "W&B; auto: online where a key is found, else offline", identity=False
    )
    project: str | None = knob(None, "W&B project; none: the competition's name", identity=False)
    entity: str | None = knob(None, "W&B user or team; none: the key's own", identity=False)


class PredictConfig(Section):
    tta: str = knob(
        "auto",
        "views: hflip * scales(1.0, 1.15) * crops(1.15); auto: all that keep the label; none",
        identity=False,
    )
    tta_mean: Literal["probabilities", "logits"] = knob("probabilities", "what is averaged over the views", identity=False)
    batch_size: int = knob(128, "images in a batch of validation and prediction", ge=1, identity=False)
    unreadable: Literal["refuse", "prior"] = knob(
        "refuse", "test rows without a picture that can be read: stop, or hand in the classes' shares for them", identity=False
    )

    @field_validator("tta")
    @classmethod
    def _readable(cls, tta: str) -> str:
        if tta not in ("auto", "none"):
            read_views(tta)
        return tta


class Config(Section):
    competition: CompetitionConfig = Field(default_factory=lambda: built_in("digits"))
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()
    predict: PredictConfig = PredictConfig()

    def identity(self) -> dict[str, Any]:
        """The knobs that decide a run's results, flat: {"train.epochs": 10, …}. Folds of one run agree on all of them."""
        flat = flatten(self.model_dump(mode="json"))
        if self.train.head != "probe":  # it decides nothing, and runs of before 0.004 was no longer its default go on
            flat["train.probe_strength"] = None
        return {key: value for key, value in flat.items() if key not in knobs_without_identity()}

    def views(self) -> tuple[View, ...]:
        """What predict.py looks at. Raises ConfigError for a view that the competition does not declare label-preserving."""
        preserving, tta = self.competition.label_preserving, self.predict.tta
        if tta in ("auto", "none"):
            return keeping_views(preserving if tta == "auto" else ())
        if unfit := forbidden(tta, preserving):
            declared = ", ".join(preserving) or "nothing"
            raise ConfigError(
                f"predict.tta: {unfit[0]} may change the label: {self.competition.name} declares {declared} label-preserving "
                "(competition.label_preserving)"
            )
        return read_views(tta)

    def digest(self, base: "Config") -> str:
        """Six hex digits of what differs from `base`, or "" where nothing does: the tail of a run's default name."""
        before = base.identity()
        changed = {key: value for key, value in self.identity().items() if before.get(key) != value}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:6] if changed else ""


def wanted_folds(asked: tuple[str, ...], count: int) -> list[str]:
    """("all",) → ["0", …]; ("0", "full") → as they are. Raises ConfigError for a fold out of range."""
    every = [str(fold) for fold in range(count)]
    wanted: list[str] = []
    if not asked:
        raise ConfigError(f"--fold: a value is missing; choose from {', '.join(every)}, all, {FULL}")
    for fold in asked:
        if fold not in (*every, "all", FULL):
            raise ConfigError(f"--fold {fold}: choose from {', '.join(every)}, all, {FULL} (data.folds is {count})")
        wanted += every if fold == "all" else [fold]
    return list(dict.fromkeys(wanted))


def shortened(config: Config) -> Config:
    """--debug: a few hundred rows and two epochs of two steps, to see the whole chain run."""
    data = config.data.model_copy(
        update={"audit": False, "rows": max(256, 4 * config.data.folds * len(config.competition.classes))}
    )
    train = config.train.model_copy(
        update={
            "epochs": 2, "steps_per_epoch": 2, "batch_size": min(16, config.train.batch_size),
            "image_sizes": config.train.image_sizes[:2], "average_epochs": min(2, config.train.average_epochs),
        }
    )  # fmt: skip
    return config.model_copy(update={"data": data, "train": train})


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} → {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines "train.lr: 0.001 → 0.01" for the keys in which two flat configurations differ."""
    keys = sorted(old.keys() | new.keys())
    return [f"{key}: {old.get(key)} → {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


def knobs(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All knobs as ("train.lr", field); the competition's own fields included."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from knobs(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


@functools.cache
def knobs_without_identity() -> frozenset[str]:
    return frozenset(key for key, field in knobs() if not field.json_schema_extra["identity"])


# Reading


def load(path: str | Path) -> Config:
    """The configuration in a YAML file, its `base` files and the built-in competition beneath it.

    Raises ConfigError naming file and key for an unreadable file, an unknown key (with the nearest one) or a bad value.
    """
    tree, origin = _read_with_bases(Path(path), ())
    return validate(tree, origin)


def load_run(run: Path) -> Config:
    """The configuration that a run was trained with. Raises ConfigError, with the nearest name, for a folder that is no run."""
    if not (run / "config.yaml").is_file():
        near = nearest(run.name, [file.parent.name for file in run.parent.glob("*/config.yaml")])
        raise ConfigError(f"{run} is not a run: it has no config.yaml{near}")
    return load(run / "config.yaml")


def built_in(name: str) -> CompetitionConfig:
    """One of the competitions in src/competitions/*.yaml."""
    return CompetitionConfig.model_validate(_competition(name, BUILT_IN))


def validate(tree: dict[str, Any], origin: dict[str, str]) -> Config:
    """A tree of plain values as a Config. `origin` tells where a dotted key was written, for the message."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None


def dump(config: Config, **more: Any) -> str:
    """The fully resolved configuration as YAML, every knob written out; `more` are further top keys."""
    return yaml.safe_dump(config.model_dump(mode="json") | more, sort_keys=False, allow_unicode=True, width=120)


def find(path: str | Path) -> Path:
    """A configuration's file as given, or else below the repository, so that a run can be started from any folder."""
    for candidate in (Path(path), REPOSITORY / path):
        if _is_file(candidate):
            return candidate
    if os.path.exists(path):
        raise ConfigError(f"{path}: not a file; name a YAML file")
    known = [str(file.relative_to(REPOSITORY)) for file in sorted((REPOSITORY / "configs").rglob("*.yaml"))]
    close = difflib.get_close_matches(str(path), known, 1)
    raise ConfigError(f"{path}: no such configuration" + (f"; did you mean {close[0]}?" if close else ""))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or no name at all
        return False


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """ "; did you mean X?" for the closest of `known`, or "" where none is close. Sections are told apart by dots."""
    word = word[:LONGEST_WORD]
    head, _, leaf = word.rpartition(".")
    # Within one section only the last part counts: the section's own name would make any two of its keys look alike.
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == head}
    elsewhere = {name: name for name in known if name.rpartition(".")[0] != head}
    leaves = {name.rpartition(".")[2]: name for name in reversed(elsewhere)}
    for part, among, least in ((leaf, leaves, 1), (leaf, beside, 0.6), (word, elsewhere, 0.6), (leaf, leaves, 0.6)):
        if close := difflib.get_close_matches(part, among, 1, least):
            return f"; did you mean {among[close[0]]}?"
    return ""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML's plain values, each key once: YAML itself forbids one that stands twice, PyYAML takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value[:60]} stands there twice", problem_mark=key.start_mark
                )
            keys |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        mapping = super().construct_mapping(node, deep)
        odd = [key for key in mapping if not isinstance(key, str)]
        if odd:
            raise yaml.constructor.ConstructorError(
                problem=f"the key {short(odd[0])} is no text; put it in quotes", problem_mark=node.start_mark
            )
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML does it, which lets !!int abc, the 31st of February and numbers of 5,000 digits end in a traceback."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            problem = f"{short(node.value)} can't be read as {kind}; put it in quotes if text is meant"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark) from None
        if isinstance(value, int) and not fits(value):
            raise yaml.constructor.ConstructorError(problem="a number beyond 64 bits", problem_mark=node.start_mark)
        return value


def _check_size(text: str) -> None:
    """Raises YAMLError for what no configuration is like: nested without end, or aliases that stand for millions of values."""
    total, sizes, begun = 0, {}, []
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            # An alias counts as all that it stands for; within itself, as more than is allowed.
            total += MOST_VALUES if event.anchor in [anchor for anchor, _ in begun] else sizes.get(event.anchor, 0)
        total += 1
        problem = "nested too deeply" if len(begun) > DEEPEST else "too many values" if total > MOST_VALUES else ""
        if isinstance(event, yaml.ScalarEvent) and (odd := UNPRINTABLE.search(event.value)):
            problem = f"holds the control character {odd[0]!r}"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def parse_yaml(text: str) -> Any:
    """What a YAML text says, in plain Python values. Raises YAMLError, and nothing else, whatever the text holds."""
    try:
        _check_size(text)
        return yaml.load(text, _Loader)
    except UnicodeError as error:  # half a surrogate pair, as in a command line that is not UTF-8
        raise yaml.YAMLError(f"not a text: {error.reason}") from None


def read_value(text: str) -> Any:
    """A value of the command line as YAML has it; as the text that it is where YAML can't read it."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping. Raises ConfigError with the line where it can't be parsed or where a key stands twice."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise ConfigError(f"{path}: more than {LARGEST:,} bytes; is this a configuration?")
        tree = parse_yaml(raw.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8, from byte {error.start} on; save it as UTF-8 text") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree or {}, dict):
        raise ConfigError(f"{path}: expected keys and values, found a {type(tree).__name__}")
    return tree or {}


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    path = find(path)
    if path.resolve() in seen:
        raise ConfigError(f"{path}: base: the files name each other in a circle")
    if len(seen) >= DEEPEST:
        raise ConfigError(f"{path}: base: more than {DEEPEST} files, each the base of another")
    tree = read_yaml(path)
    tree.pop("made_with", None)  # a run's config.yaml also says with which versions it was made
    base = tree.pop("base", None)
    if "competition" in tree:
        tree["competition"] = _competition(tree["competition"], path)
    origin = dict.fromkeys(flatten(tree), str(path))
    if base is None:
        return tree, origin
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: must be a file's name, not {short(base)}")
    try:
        beside = path.parent / base
        below_path = find(beside if _is_file(beside) else base)
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from None
    below, below_origin = _read_with_bases(below_path, (*seen, path.resolve()))
    return _merge(below, tree), below_origin | origin


def _competition(given: Any, path: Path) -> dict[str, Any]:
    """`competition: shopee`, or a mapping, which may start from a `base: shopee`."""
    if not isinstance(given, str | dict):
        raise ConfigError(f"{path}: competition: must be the name of a built-in one or a mapping, not {short(given)}")
    fields = {"base": given} if isinstance(given, str) else dict(given)
    base = fields.pop("base", None)
    if base is None:
        return fields
    known = [file.stem for file in sorted(BUILT_IN.glob("*.yaml"))]
    if base not in known:
        raise ConfigError(
            f"{path}: competition: {short(base)} is not built in (those are {', '.join(known)}){nearest(str(base), known)} "
            "Another one is written out as a mapping with train_csv, train_images, metric, …"
        )
    file = BUILT_IN / f"{base}.yaml"
    return _competition(read_yaml(file), file) | fields


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _merge(below[key], value) if both and key != "competition" else value
    return merged


def _explain(error: ValidationError, origin: dict[str, str]) -> str:
    """One line for pydantic's findings: place, key, what is wrong, what is allowed."""
    findings, lines = error.errors(), []
    for finding in findings[:FAULTS]:
        location = [str(part) for part in finding["loc"] if not str(part).startswith(("function-", "constrained-"))]
        key = ".".join(location)
        known = dict(knobs())
        while key and key not in known and finding["type"] != "extra_forbidden" and key.rpartition(".")[0] in known:
            key = key.rpartition(".")[0]
        place = _place(key, origin)
        if finding["type"] == "extra_forbidden":
            near = nearest(key, [*known] if "." in key else [*Config.model_fields, "base", *known])
            said = f"unknown key{near or '; known are ' + ', '.join(_siblings(key))}"
        elif finding["type"] == "value_error":
            said = str(finding["ctx"]["error"])
        elif finding["type"] == "missing" and location[-1] == key.rpartition(".")[2]:
            said = f"is missing{_hint(known.get(key))}"
        elif finding["type"] in ("missing", "too_long") and known.get(key):
            said = f"wrong number of values{_hint(known[key])}"
        else:
            given = finding["input"] if not isinstance(finding["input"], dict) else "a mapping"
            must = finding["msg"].lower().replace("input should be", "must be")
            quotes = "; put it in quotes" if finding["type"] == "string_type" and not isinstance(given, list | None) else ""
            said = f"{must}, not {short(given)}{quotes}{_hint(known.get(key))}"
        lines.append(": ".join(part for part in (place, key, said) if part))
    lines += [f"and {len(findings) - FAULTS:,} more faults"] if len(findings) > FAULTS else []
    return "; ".join(dict.fromkeys(lines))


def _place(key: str, origin: dict[str, str]) -> str:
    """Where a key was written; for one that is missing, where its section was."""
    for start in (key, key.partition(".")[0]):
        for at, where in origin.items():
            if at == start or at.startswith(f"{start}.") or start.startswith(f"{at}."):
                return where
    return ""


def _siblings(key: str) -> list[str]:
    head, dot, _ = key.rpartition(".")
    in_section = [name for name, _ in knobs() if dot and name.startswith(f"{head}.")]
    return in_section or [*Config.model_fields, "base"]


def _hint(field: Any) -> str:
    return f" ({field.description})" if field is not None and field.description else ""
