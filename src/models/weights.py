"""Where pretrained weights come from: a file, whoever wrote it, or the hub.

A file may hold more than the weights, and under longer names: DistributedDataParallel writes `module.`, torch.compile
`_orig_mod.`, Lightning `model.` within `state_dict`, and many keep the moving average beside the model.
"""

import argparse
import pickle
import re
import socket
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import load_file
from torch import nn

from src.errors import UserError

PORTS = {"http": 80, "https": 443}


def read(path: str, names: Collection[str]) -> dict[str, torch.Tensor]:
    """The weights in a file under the `names` that the model has for them, without the prefix that they stand under there.

    The prefix is the one under which most of the names are found; of equally many, the moving average's. Where fewer than
    half are found, the file is in another library's form, and comes back as timm reads it, for timm to convert.
    Raises UserError for a file that would run code, and whatever safetensors and torch raise for a damaged one.
    """
    tensors = dict(_tensors(_opened(path)))
    found = Counter(prefix for name in tensors for prefix, rest in _splits(name) if rest in names)
    prefix = max(found, key=lambda prefix: (found[prefix], "ema" in prefix.lower(), -len(prefix)), default="")
    if found[prefix] * 2 < len(names):
        return timm.models.load_state_dict(path)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _opened(path: str) -> object:
    if path.endswith(".safetensors"):
        return load_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm's own checkpoints hold their arguments
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # which says in colours, and on several lines, how to run the file's code
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
        if not objects:
            raise pickle.UnpicklingError("not a checkpoint of tensors") from None
        raise UserError(
            f"model.weights: {path} holds {', '.join(sorted(objects)[:3])} beside tensors, which torch would have to run "
            "(weights_only=False); save the weights alone: torch.save(model.state_dict(), FILE)"
        ) from None


def _tensors(tree: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of nested dictionaries, with its keys joined by dots."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        else:
            yield from _tensors(value, f"{prefix}{key}.")


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """`a.b.c` as prefix and rest: ("", "a.b.c"), ("a.", "b.c"), ("a.b.", "c")."""
    yield "", name
    for dot in re.finditer(r"\.", name):
        yield name[: dot.end()], name[dot.end() :]


def check_loaded(file: str, name: str, below: dict[str, nn.Parameter], untouched: nn.Module, in_file: Collection[str]) -> None:
    """Every weight below the head must have come from the file, and every layer in the file must have found its place.

    timm takes a file that shares no layer with the model, or a ResNet-34's for a ResNet-18, without a word.
    below: the model's parameters without its head's, by name. untouched: the same model before it was given the file.
    in_file: the names in the file, as `read` gives them. Raises UserError naming the first layer that is amiss.
    """
    before = dict(untouched.named_parameters())
    weights = {name: weight for name, weight in below.items() if weight.ndim > 1}
    absent = [name for name, weight in weights.items() if torch.equal(weight, before[name])]
    if absent:
        raise UserError(
            f"model.weights: {file} holds another architecture than {name}: "
            f"{len(absent)} of its {len(weights)} layers are not in the file, the first is {absent[0]}"
        )
    if not weights.keys() <= set(in_file):
        return  # timm renamed them on the way: there is nothing to compare
    kinds = {re.sub(r"\d+", "#", name) for name in weights}
    surplus = [name for name in in_file if name not in before and re.sub(r"\d+", "#", name) in kinds]
    if surplus:
        raise UserError(
            f"model.weights: {file} holds a larger architecture than {name}: "
            f"{len(surplus)} layers of the file have no place in it, the first is {surplus[0]}"
        )


def hub_answers() -> bool:
    """Whether something listens at the hub's address, or at that of the mirror in HF_ENDPOINT; a proxy is trusted."""
    try:
        url = urlparse(hub.ENDPOINT)
        host, port = url.hostname, url.port or PORTS[url.scheme]
    except (ValueError, KeyError):
        host = None
    if not host:
        raise UserError(f"HF_ENDPOINT: {hub.ENDPOINT!r} is not an address such as https://huggingface.co")
    proxies = urllib.request.getproxies()
    if (url.scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host):
        return True  # only the proxy knows
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
