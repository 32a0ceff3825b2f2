"""Pretrained weights: taken from any file that holds them, or from the hub; anything else is refused in one line."""

import argparse
import socket
import time
from pathlib import Path

import httpx2
import pytest
import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import save_file
from torch import nn

from src.config import ModelConfig
from src.errors import UserError
from src.models import backbone, weights


def same_weights(one: nn.Module, other: nn.Module, but: tuple[str, ...] = ()) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith(but))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same ImageNet-like weights as .safetensors and as .pth, in several wrappings; and damaged files."""
    folder = tmp_path_factory.mktemp("weights")
    state = pretrained().state_dict()
    save_file(state, folder / "plain.safetensors")
    torch.save(state, folder / "plain.pth")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, folder / "wrapped.pth")
    for name in ("plain.safetensors", "plain.pth"):
        whole = (folder / name).read_bytes()
        (folder / f"cut.{name}").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("<html>Not found</html>")
    (folder / "text.safetensors").write_text("<html>Not found</html>")
    torch.save([1, 2], folder / "list.pth")
    return folder


def pretrained() -> nn.Module:
    torch.manual_seed(1234)
    return timm.create_model("test_resnet", num_classes=1000)


# A file


@pytest.mark.parametrize("file", ["plain.safetensors", "plain.pth", "wrapped.pth"])
def test_weights_in_a_local_file_are_really_loaded_below_a_fresh_head(file: str, files: Path):
    model, _ = backbone.create(ModelConfig(name="test_resnet", image_size=64, weights=str(files / file)), 3)
    assert same_weights(model, pretrained(), but=("fc.",))
    assert model.fc.weight.shape == (3, model.num_features)
    assert (model.fc.weight == 0).all()


def test_a_head_that_came_with_the_weights_is_left_alone(files: Path):
    config = ModelConfig(name="test_resnet", image_size=64, weights=str(files / "plain.safetensors"))
    assert (backbone.create(config, 3)[0].fc.weight == 0).all()
    assert torch.equal(backbone.create(config, 1000)[0].fc.weight, pretrained().fc.weight)


def test_a_head_of_the_right_size_is_loaded_too(files: Path):
    model, _ = backbone.create(ModelConfig(name="test_resnet", image_size=64, weights=str(files / "plain.safetensors")), 1000)
    assert same_weights(model, pretrained())


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("name", ["cifar_net", "test_vit", "test_efficientnet"])
def test_weights_of_another_architecture_are_refused(name: str, classes: int, files: Path):
    with pytest.raises(UserError, match=rf"model\.weights: .*plain\.safetensors holds another architecture than {name}"):
        backbone.create(ModelConfig(name=name, weights=str(files / "plain.safetensors")), classes)


def test_weights_that_timm_takes_for_alexnet_without_a_word_are_refused(files: Path):
    with pytest.raises(UserError, match=r"alexnet: 7 of its 7 layers are not in the file, the first is features\.0\.weight"):
        backbone.create(ModelConfig(name="alexnet", weights=str(files / "plain.pth"), image_size=64), 2)


@pytest.mark.parametrize(("larger", "smaller"), [("resnet34", {"name": "resnet18"}), ("test_vit", {"kwargs": ("depth=2",)})])
def test_weights_of_a_deeper_model_of_the_same_family_are_refused(larger: str, smaller: dict, tmp_path: Path):
    """timm takes them without a word: every layer of the smaller model is in the file."""
    file = tmp_path / "larger.safetensors"
    save_file(timm.create_model(larger).state_dict(), file)
    with pytest.raises(UserError, match=r"holds a larger architecture .*: 16 layers of the file have no place in it"):
        backbone.create(ModelConfig(**{"name": larger, "weights": str(file), **smaller}), 2)


@pytest.mark.parametrize(
    "file", ["cut.plain.safetensors", "cut.plain.pth", "empty.pth", "text.pth", "text.safetensors", "list.pth"]
)
def test_a_damaged_file_of_weights_is_refused_in_one_line(file: str, files: Path):
    with pytest.raises(UserError, match=rf"{file} is damaged, or not a file of test_resnet's weights") as told:
        backbone.create(ModelConfig(name="test_resnet", image_size=64, weights=str(files / file)), 2)
    assert "\n" not in str(told.value)


def test_a_file_of_weights_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"model\.weights: .*absent\.pth: no such file"):
        backbone.create(ModelConfig(name="test_resnet", weights=str(tmp_path / "absent.pth")), 2)


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub can't be reached, and nothing is in its cache."""
    monkeypatch.setattr(weights, "hub_answers", lambda: False)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)  # set by the code under test; put back at the end
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_an_unreachable_hub_gives_one_line_with_the_remedy_at_once(no_hub: Path):
    started = time.monotonic()
    with pytest.raises(UserError, match=r"test_resnet .*--model\.weights FILE\.safetensors.*--model\.weights none") as told:
        backbone.create(ModelConfig(name="test_resnet"), 2)
    assert time.monotonic() - started < 10
    assert "\n" not in str(told.value)


def test_weights_in_the_hubs_cache_load_without_the_hub(no_hub: Path):
    source = timm.models.get_pretrained_cfg("test_resnet").hf_hub_id.partition("@")[0]
    cached = no_hub / f"models--{source.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(pretrained().state_dict(), cached / "snapshots" / ("0" * 40) / "model.safetensors")
    model, _ = backbone.create(ModelConfig(name="test_resnet"), 2)
    assert same_weights(model, pretrained(), but=("fc.",))


def test_a_model_without_weights_on_the_hub_says_so(no_hub: Path):
    with pytest.raises(UserError, match=r"cifar_net has no pretrained weights on timm's hub; use --model\.weights none"):
        backbone.create(ModelConfig(name="cifar_net"), 2)


# Under which names a file holds them


def under(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: under("module.", state),
        lambda state: under("_orig_mod.module.", state),
        lambda state: under("net.", state),
        lambda state: under("model.backbone.encoder.", state),
        lambda state: under("0.", state) | {"1.weight": torch.zeros(5, 5), "1.bias": torch.zeros(5)},
        lambda state: {"model": state},
        lambda state: {"net": state, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        lambda state: {"model": {"state_dict": under("module.", state)}},
        lambda state: {"state_dict": under("model.", state) | {"criterion.weight": torch.zeros(5)}, "callbacks": {}},
        lambda state: {"state_dict": blank(state), "state_dict_ema": under("module.", state)},
        lambda state: {"model": blank(state), "ema": state},
        lambda state: {"ema_model": under("module.", state), "model": under("module.", blank(state))},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    ],
)
def test_weights_under_any_prefix_are_found(wrap, tmp_path: Path):
    file = tmp_path / "weights.pth"
    torch.save(wrap(pretrained().state_dict()), file)
    model, _ = backbone.create(ModelConfig(name="test_resnet", image_size=64, weights=str(file)), 3)
    assert same_weights(model, pretrained(), but=("fc.",))


def blank(state: dict) -> dict:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def test_a_prefix_in_a_safetensors_file_is_stripped(tmp_path: Path):
    save_file(under("backbone.", pretrained().state_dict()), tmp_path / "weights.safetensors")
    config = ModelConfig(name="test_resnet", image_size=64, weights=str(tmp_path / "weights.safetensors"))
    assert same_weights(backbone.create(config, 3)[0], pretrained(), but=("fc.",))


def test_another_librarys_names_are_left_for_timm_to_convert(tmp_path: Path):
    """DINOv2's own ViT holds its registers and its mask token under other names than timm's."""
    state = pretrained().state_dict()
    foreign = {f"stage/{name}": tensor for name, tensor in state.items()}
    torch.save({"model": under("module.", foreign)}, tmp_path / "weights.pth")
    assert weights.read(str(tmp_path / "weights.pth"), state.keys()).keys() == foreign.keys()


def test_the_file_is_not_kept_with_the_model(files: Path):
    """Every copy of the model, as the moving average, would hold it again."""
    model, _ = backbone.create(ModelConfig(name="test_resnet", image_size=64, weights=str(files / "plain.pth")), 3)
    assert not model.pretrained_cfg.get("state_dict")


@pytest.mark.parametrize("content", ["module", "path"])
def test_a_file_that_would_run_code_is_refused(content: str, tmp_path: Path):
    file = tmp_path / "whole.pth"
    torch.save(pretrained() if content == "module" else {"model": pretrained().state_dict(), "best": Path("a")}, file)
    with pytest.raises(UserError, match=r"whole\.pth .*weights_only.*state_dict"):
        backbone.create(ModelConfig(name="test_resnet", image_size=64, weights=str(file)), 2)


# Where the hub is


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The addresses that were asked, none of which answers; the machine's own proxies are unknown."""
    addresses = []

    def refuse(address: tuple[str, int], timeout: float) -> None:
        assert timeout <= 5
        addresses.append(address)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", refuse)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return addresses


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("https://huggingface.co", ("huggingface.co", 443)),
        ("https://mirror:8443", ("mirror", 8443)),
        ("http://localhost:8090/hub", ("localhost", 8090)),
        ("http://mirror.example", ("mirror.example", 80)),
    ],
)
def test_the_hub_or_its_mirror_is_asked_on_its_own_port(
    endpoint: str, address: tuple[str, int], asked: list, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub, "ENDPOINT", endpoint)
    assert not weights.hub_answers()
    assert asked == [address]


def test_a_mirror_that_listens_answers(monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as mirror:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{mirror.getsockname()[1]}")
        assert weights.hub_answers()


@pytest.mark.parametrize(
    ("proxy", "answers"),
    [
        ({"https_proxy": "http://proxy:3128"}, True),
        ({"ALL_PROXY": "socks5://proxy:1080"}, True),
        ({"http_proxy": "http://proxy:3128"}, False),  # the hub's scheme is https
        ({"https_proxy": "http://proxy:3128", "no_proxy": "huggingface.co"}, False),
    ],
)
def test_a_proxy_is_trusted_where_it_is_used(proxy: dict, answers: bool, asked: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "ENDPOINT", "https://huggingface.co")
    for name, value in proxy.items():
        monkeypatch.setenv(name, value)
    assert weights.hub_answers() == answers
    assert len(asked) == (not answers)


@pytest.mark.parametrize("endpoint", ["mirror.example", "mirror:8443", "ftp://mirror", "https://", "https://mirror:port"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str, asked: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "ENDPOINT", endpoint)
    with pytest.raises(UserError, match="HF_ENDPOINT"):
        weights.hub_answers()
    assert not asked


def test_a_hub_that_breaks_off_gives_one_line(no_hub: Path, monkeypatch: pytest.MonkeyPatch):
    """The hub's client raises errors of its HTTP library, which are no OSError."""

    def break_off(*_: object, **__: object) -> None:
        raise httpx2.RemoteProtocolError("Server disconnected\nwithout sending a response.")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", break_off)
    with pytest.raises(UserError, match=r"test_resnet .*RemoteProtocolError.*--model\.weights none") as told:
        backbone.create(ModelConfig(name="test_resnet"), 2)
    assert "\n" not in str(told.value)
