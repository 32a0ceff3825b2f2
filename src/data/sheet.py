"""The audit in pictures: one PNG with examples of every kind of finding, a duplicate beside its twin."""

import os
import textwrap
import warnings
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageDraw, ImageFile, ImageFont, ImageOps

from src.data.audit import KINDS
from src.data.facts import load, overheard
from src.data.image import ImageError, irregular, read
from src.errors import UserError

EXAMPLES = 5  # of each kind
WITHOUT_PICTURE = frozenset({"missing"})  # shown in words only
_SIDE, _GAP, _TEXT = 150, 12, 13  # pixels: the square a picture is fitted into, between two of them, height of a line
_PAPER, _INK, _PALE, _EMPTY = "white", "black", "#666666", "#eeeeee"


def picture_sheet(findings: pd.DataFrame, root: Path, path: Path, examples: int = EXAMPLES) -> None:
    """Write a PNG of up to `examples` findings of each kind, captioned. findings: as in Audit.

    A truncated file is shown as far as it goes, any other that can't be decoded as a cross. Raises UserError where the sheet
    can't be written.
    """
    by_kind = {kind: findings[findings["kind"] == kind] for kind in KINDS}
    strips = [_strip(kind, found, root, examples) for kind, found in by_kind.items() if len(found)]
    strips = strips or [_heading("no findings", "")]
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips) + _GAP), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        ImageDraw.Draw(sheet).line([(0, top + 2), (width, top + 2)], fill=_PALE)
        top += strip.height
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(partial, "PNG")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None


def _strip(kind: str, findings: pd.DataFrame, root: Path, examples: int) -> Image.Image:
    """One kind: its heading, and its first examples side by side."""
    shown = findings.head(examples)
    more = f", {len(shown)} shown" if len(shown) < len(findings) else ""
    heading = _heading(f"{kind}: {len(findings):,}{more}", KINDS[kind])
    tiles = [_tile(finding, root) for finding in shown.itertuples()]
    width = max(heading.width, sum(tile.width + _GAP for tile in tiles) + _GAP)
    strip = Image.new("RGB", (width, heading.height + max(tile.height for tile in tiles) + _GAP), _PAPER)
    strip.paste(heading, (0, 0))
    left = _GAP
    for tile in tiles:
        strip.paste(tile, (left, heading.height))
        left += tile.width + _GAP
    return strip


def _heading(title: str, meaning: str) -> Image.Image:
    large, small = ImageFont.load_default(_TEXT + 3), ImageFont.load_default(_TEXT)
    left = _GAP + int(large.getlength(title)) + 10
    image = Image.new("RGB", (left + int(small.getlength(meaning)) + _GAP, 40), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_GAP, 10), title, fill=_INK, font=large)
    draw.text((left, 13), meaning, fill=_PALE, font=small)
    return image


def _tile(finding: NamedTuple, root: Path) -> Image.Image:
    """A finding's picture, its twin's beside it, and beneath: the paths, or the row's id, and what was found."""
    paths = [finding.path] + ([finding.twin_path] if finding.twin_path not in ("", finding.path) else [])
    shown = paths if finding.kind not in WITHOUT_PICTURE else []
    width = max(len(shown), 1) * (_SIDE + _GAP // 2) - _GAP // 2
    lines = _wrap(" | ".join(paths), width, 2) + _wrap(finding.detail, width, 3)
    top = _SIDE + 4 if shown else 0
    tile = Image.new("RGB", (width, top + len(lines) * (_TEXT + 2)), _PAPER)
    for place, path in enumerate(shown):
        tile.paste(_picture(root / path), (place * (_SIDE + _GAP // 2), 0))
    draw = ImageDraw.Draw(tile)
    for number, line in enumerate(lines):
        draw.text((0, top + number * (_TEXT + 2)), line, fill=_INK, font=ImageFont.load_default(_TEXT - 1))
    return tile


def _wrap(words: str, width: int, lines: int) -> list[str]:
    """Text broken to fit `width` pixels, at most `lines` lines, "…" where something is left out."""
    return textwrap.wrap(words, width // 7, max_lines=lines, placeholder="…", break_long_words=True)


def _picture(path: Path) -> Image.Image:
    """An image fitted into the square, small ones enlarged, as training sees it, or else as far as PIL gets, or a cross."""
    try:
        with overheard():
            picture = Image.fromarray(read(path))
    except ImageError:
        picture = _as_far_as_it_goes(path)
    if picture is None:
        return _cross()
    # Nearest where it grows: that a picture has few pixels should be seen.
    how = Image.Resampling.NEAREST if max(picture.size) < _SIDE else Image.Resampling.LANCZOS
    picture = ImageOps.contain(picture, (_SIDE, _SIDE), how)
    frame = Image.new("RGB", (_SIDE, _SIDE), _EMPTY)
    frame.paste(picture, ((_SIDE - picture.width) // 2, (_SIDE - picture.height) // 2))
    return frame


def _as_far_as_it_goes(path: Path) -> Image.Image | None:
    """What PIL makes of a file that training refuses; None where that is nothing."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return None if irregular(path.stat()) else ImageOps.exif_transpose(load(path.read_bytes())).convert("RGB")
    except Exception:  # PIL's plugins raise anything on damaged files
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _cross() -> Image.Image:
    frame = Image.new("RGB", (_SIDE, _SIDE), _EMPTY)
    draw = ImageDraw.Draw(frame)
    for line in ((0, 0, _SIDE, _SIDE), (0, _SIDE, _SIDE, 0)):
        draw.line(line, fill=_PALE)
    return frame
