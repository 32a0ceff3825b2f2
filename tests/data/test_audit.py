"""Every kind of fault is planted and must be found by name; what is sound must give no finding."""

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import SHARED
from pictures import encode, picture, test_table, train_table, write
from src.competitions import tables
from src.config import built_in
from src.data.audit import COLUMNS, KINDS, Audit, audit
from src.data.sheet import picture_sheet
from src.errors import UserError

EOI = b"\xff\xd9"
P = picture(1)  # what most faults are planted into; never itself in the folder twice
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def of(seed: int, kind: str = "JPEG", **options: object) -> bytes:
    return encode(picture(seed), kind, **options)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def frames(kind: str, seed: int) -> bytes:
    buffer = io.BytesIO()
    one, two = (Image.fromarray(picture(seed + i)) for i in range(2))
    one.save(buffer, kind, save_all=True, append_images=[two])
    return buffer.getvalue()


def grey_tail(seed: int, rows: int) -> np.ndarray:
    image = picture(seed)
    image[-rows:] = 128
    return image


def flipped(data: bytes, place: float) -> bytes:
    """One byte in the middle turned over."""
    at = int(len(data) * place)
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def with_orientation(seed: int, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return of(seed, exif=exif)


def sixteen(seed: int, colours: int) -> bytes:
    deep = picture(seed).astype(np.uint16) * 257
    return cv2.imencode(".png", deep if colours == 3 else deep[..., 0])[1].tobytes()


def twelve(seed: int, most: int) -> bytes:
    """Values up to `most` in a 16-bit PNG."""
    grey = picture(seed)[..., 0].astype(float)
    return cv2.imencode(".png", np.round((grey - grey.min()) / np.ptp(grey) * most).astype(np.uint16))[1].tobytes()


def in_alpha(seed: int, colour: int, alpha: bool = True) -> bytes:
    """A picture in the alpha channel of one colour, or without `alpha` that colour under an even one."""
    image = np.full((96, 128, 4), colour, np.uint8)
    image[..., 3] = picture(seed)[..., 0] if alpha else 77
    return encode(image, "PNG")


def claiming(side: int) -> bytes:
    data = bytearray(of(33, "BMP"))
    struct.pack_into("<ii", data, 18, side, side)
    return bytes(data)


def holed(seed: int) -> bytes:
    """A JPEG that lost the stretch between two restart markers: it decodes to its end, all below in the wrong place."""
    data = cv2.imencode(".jpg", picture(seed, 384, 512), [cv2.IMWRITE_JPEG_RST_INTERVAL, 8])[1].tobytes()
    return data[: data.index(b"\xff\xd2")] + data[data.index(b"\xff\xd4") :]


# name → (file's bytes, the kinds that must be found of it)
FILES: dict[str, tuple[bytes, set[str]]] = {
    "zero_bytes.jpg": (b"", {"empty"}),
    "text.jpg": (b"this is no image\n" * 40, {"not_an_image"}),
    "error_page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", {"not_an_image"}),
    "zip_archive.png": (b"PK\x03\x04" + bytes(range(256)) * 4, {"not_an_image"}),
    "zeros.jpg": (bytes(5000), {"not_an_image"}),
    "random.jpg": (np.random.default_rng(0).bytes(5000), {"not_an_image"}),
    "numpy_array.png": (b"\x93NUMPY\x01\x00" + bytes(500), {"not_an_image"}),
    "cut_jpeg.jpg": (half(of(10)), {"truncated"}),
    "jpeg_header_only.jpg": (of(11)[:20], {"truncated"}),
    "jpeg_without_its_last_two_bytes.jpg": (of(12)[:-2], {"truncated"}),
    "jpeg_filled_up_with_zeros.jpg": (half(of(13)) + bytes(3000), {"truncated"}),
    "cut_jpeg_closed_again.jpg": (half(of(14)) + EOI, {"grey_tail"}),
    "jpeg_that_lacks_ten_bytes_closed_again.jpg": (of(15)[:-12] + EOI, {"grey_tail"}),
    "cut_progressive_jpeg_closed_again.jpg": (half(of(16, progressive=True)) + EOI, {"grey_tail"}),
    "grey_tail_saved_as_png.png": (encode(grey_tail(17, 16), "PNG"), {"grey_tail"}),
    "grey_tail_saved_as_jpeg.jpg": (encode(grey_tail(18, 24)), {"grey_tail"}),
    "grey_tail_shrunk.png": (encode(cv2.resize(grey_tail(19, 16), None, fx=0.5, fy=0.5), "PNG"), {"grey_tail"}),
    "cut_png.png": (half(of(20, "PNG")), {"truncated"}),
    "png_without_its_end_chunk.png": (of(21, "PNG")[:-12], {"truncated"}),
    "cut_webp.webp": (half(of(22, "WEBP")), {"truncated"}),
    "cut_bmp.bmp": (half(of(23, "BMP")), {"truncated"}),
    "cut_gif.gif": (half(of(24, "GIF")), {"truncated"}),
    "cut_tiff.tif": (half(of(25, "TIFF")), {"truncated"}),
    "cut_jpeg2000.jp2": (half(of(26, "JPEG2000")), {"truncated"}),
    "png_signature_only.png": (PNG_SIGNATURE, {"truncated"}),
    "png_with_a_wrong_checksum.png": (flipped(of(27, "PNG"), 0.5), {"unreadable"}),
    "format_that_opencv_does_not_know.png": (of(28, "ICO"), {"unreadable"}),
    "jpeg_with_a_hole.jpg": (holed(29), {"damaged"}),
    "few_pixels.png": (encode(picture(30, 12, 12), "PNG"), {"tiny"}),
    "one_pixel.png": (encode(picture(31, 1, 1), "PNG"), {"tiny", "one_colour"}),
    "wide.jpg": (encode(picture(32, 60, 600)), {"extreme_aspect"}),
    "high.jpg": (encode(picture(33, 600, 60)), {"extreme_aspect"}),
    "white.png": (encode(np.full((96, 128, 3), 255, np.uint8), "PNG"), {"one_colour"}),
    "red_jpeg.jpg": (encode(np.full((96, 128, 3), (200, 20, 30), np.uint8)), {"one_colour"}),
    "grey_all_over.png": (encode(np.full((96, 128, 3), 128, np.uint8), "PNG"), {"one_colour"}),
    "cmyk.jpg": (of(34, mode="CMYK"), {"cmyk"}),
    "sixteen_bit_colour.png": (sixteen(35, 3), {"sixteen_bit"}),
    "sixteen_bit_grey.png": (sixteen(36, 1), {"sixteen_bit"}),
    "sixteen_bit.tif": (cv2.imencode(".tif", picture(37).astype(np.uint16) * 257)[1].tobytes(), {"sixteen_bit"}),
    "eight_bits_in_sixteen.png": (twelve(38, 250), {"sixteen_bit", "mixed_depth"}),
    "twelve_bits_in_sixteen.png": (twelve(39, 4000), {"sixteen_bit", "mixed_depth"}),
    "black_with_alpha.png": (in_alpha(47, 0), {"alpha_only"}),
    "white_with_alpha.png": (in_alpha(48, 255), {"alpha_only"}),
    "one_colour_even_alpha.png": (in_alpha(49, 0, alpha=False), {"one_colour"}),
    "floats.tif": (cv2.imencode(".tif", picture(55)[..., 0].astype(np.float32) / 255)[1].tobytes(), {"unreadable"}),
    "claims_a_million_pixels_a_side.bmp": (claiming(10**6), {"unreadable"}),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", {"not_an_image"}),
    "animated.gif": (frames("GIF", 40), {"animated"}),
    "animated.webp": (frames("WEBP", 42), {"animated"}),
    "animated.png": (frames("PNG", 44), {"animated"}),
    "two_pages.tif": (frames("TIFF", 46), {"animated"}),
    "on_its_side.jpg": (with_orientation(50, 6), {"exif_rotated"}),
    "mirrored.jpg": (with_orientation(51, 2), {"exif_rotated"}),
    "png_called_jpg.jpg": (of(52, "PNG"), {"wrong_suffix"}),
    "jpeg_called_png.png": (of(53), {"wrong_suffix"}),
    "cut_gif_called_jpg.jpg": (half(of(54, "GIF")), {"truncated", "wrong_suffix"}),
}

SOUND: dict[str, bytes] = {
    "baseline.jpg": of(100), "progressive.jpg": of(101, progressive=True), "low_quality.jpg": of(102, quality=5),
    "grey.jpg": of(103, mode="L"), "capital.JPG": of(104), "long_suffix.jpeg": of(105), "colour.png": of(106, "PNG"),
    "palette.png": of(107, "PNG", mode="P"), "alpha.png": of(108, "PNG", mode="RGBA"), "still.gif": of(109, "GIF"),
    "lossy.webp": of(110, "WEBP"), "lossless.webp": of(111, "WEBP", lossless=True), "plain.bmp": of(112, "BMP"),
    "plain.tif": of(113, "TIFF"), "packed.tif": of(114, "TIFF", compression="tiff_lzw"), "wavelets.jp2": of(115, "JPEG2000"),
    "bytes_after_the_end.jpg": of(116) + b"appended by a camera" * 20,
    "bytes_before_the_end.jpg": of(117)[:-2] + b"\x12" * 239 + EOI,  # as in many of Microsoft's cats
    "exif_upright.jpg": with_orientation(118, 1), "exif_nonsense.jpg": with_orientation(119, 77),
    "grey_frame.png": encode(cv2.copyMakeBorder(picture(120), 9, 9, 9, 9, cv2.BORDER_CONSTANT, value=(128,) * 3), "PNG"),
    "black_below.png": encode(cv2.copyMakeBorder(picture(121), 0, 20, 0, 0, cv2.BORDER_CONSTANT), "PNG"),
    "three_to_one.jpg": encode(picture(122, 60, 180)), "thirty_two.png": encode(picture(123, 32, 32), "PNG"),
    "white_with_a_dot.png": encode(cv2.circle(np.full((96, 128, 3), 255, np.uint8), (40, 40), 5, (0, 0, 0), -1), "PNG"),
}  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    root = tmp_path_factory.mktemp("planted")
    write(root, {f"train/{name}": data for name, (data, _) in FILES.items()})
    write(root, {f"sound/{name}": data for name, data in SOUND.items()})
    rows = [f"train/{name}" for name in FILES] + [f"sound/{name}" for name in SOUND]
    listed = tables.listing(root, "{id}")
    return audit(root, train_table(rows).assign(id=rows), None, listed, workers=1)


def kinds(result: Audit, path: str) -> set[str]:
    return set(result.findings["kind"][result.findings["path"] == path])


@pytest.mark.parametrize("name", FILES)
def test_a_planted_file_is_found_by_name(planted: Audit, name: str):
    assert kinds(planted, f"train/{name}") == FILES[name][1]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_file_gives_no_finding(planted: Audit, name: str):
    assert planted.findings[planted.findings["path"] == f"sound/{name}"].empty


def test_every_detail_is_one_line_that_says_something(planted: Audit):
    assert planted.findings["detail"].str.len().between(3, 160).all()
    assert not planted.findings["detail"].str.contains("\n").any()
    tail = planted.findings.set_index("path")["detail"]
    deep = planted.findings.set_index(["kind", "path"])["detail"]
    assert deep["sixteen_bit", "train/twelve_bits_in_sixteen.png"] == "12 of 16 bits in use, 247 levels left"
    assert deep["mixed_depth", "train/twelve_bits_in_sixteen.png"] == "scaled from 12 bits, most from 16"
    assert tail["train/grey_tail_saved_as_png.png"] == "decodes without complaint; the last 16 of 96 rows are grey"
    assert tail["train/error_page.jpg"] == "44 bytes, beginning with '<!DOCTYPE html><'"


def test_the_decoders_complaints_stay_off_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture):
    write(tmp_path, {"a.jpg": half(of(14)) + EOI, "b.png": flipped(of(27, "PNG"), 0.5), "c.tif": half(of(25, "TIFF"))})
    assert audit(tmp_path, train_table(["a.jpg", "b.png", "c.tif"]), None).counts == {
        "unreadable": 1,
        "truncated": 1,
        "grey_tail": 1,
    }
    assert capfd.readouterr() == ("", "")


# Folders: rows without image, images without row


def test_rows_without_an_image_say_why(tmp_path: Path):
    write(tmp_path, {"train/a.JPG": of(1), "train/folder.jpg/x": b""})
    (tmp_path / "train/link.jpg").symlink_to(tmp_path / "gone.jpg")
    rows = train_table(["train/a.jpg", "train/b.jpg", "train/folder.jpg", "train/link.jpg", "elsewhere/c.jpg"])
    found = audit(tmp_path, rows, test_table(["test/1.jpg"])).findings
    assert list(zip(found["part"], found["id"], found["kind"], found["detail"], strict=True)) == [
        ("train", "a", "missing", "not there, but a.JPG is"),
        ("train", "b", "missing", "not there"),
        ("train", "folder", "missing", "a folder, not a file"),
        ("train", "link", "missing", "a link to nothing"),
        ("train", "c", "missing", "its folder is not there"),
        ("test", "1", "missing", "its folder is not there"),
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among this system's files")
def test_pipes_devices_and_loops_of_links_are_never_waited_for(tmp_path: Path):
    write(tmp_path, {"train/a.jpg": of(1)})
    os.mkfifo(tmp_path / "train/pipe.jpg")
    (tmp_path / "train/zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "train/loop.jpg").symlink_to("loop.jpg")
    rows = train_table([f"train/{name}.jpg" for name in ("a", "pipe", "zero", "loop")])
    found = audit(tmp_path, rows, None, ["train/orphan.jpg"]).findings
    assert found["kind"].tolist() == ["missing"] * 3 + ["orphan"]
    os.mkfifo(tmp_path / "train/orphan.jpg")
    picture_sheet(found.assign(kind="orphan"), tmp_path, tmp_path / "audit.png")  # draws every one of them
    assert (tmp_path / "audit.png").is_file()


def test_images_without_a_row_are_listed_with_their_folder(tmp_path: Path):
    write(tmp_path, {"train/a.jpg": of(1), "train/b.jpg": of(2), "test/1.jpg": of(3)})
    found = audit(tmp_path, train_table(["train/a.jpg"]), None, ["train/a.jpg", "train/b.jpg", "test/1.jpg"]).findings
    assert found[["part", "id", "path", "kind"]].to_numpy().tolist() == [
        ["folder", "", "test/1.jpg", "orphan"],
        ["folder", "", "train/b.jpg", "orphan"],
    ]


def test_a_file_that_cannot_be_opened_is_unreadable_and_not_remembered_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, {"a.jpg": of(1), "b.jpg": of(2)})
    rows, cache, read_bytes = train_table(["a.jpg", "b.jpg"]), tmp_path / "cache.npz", Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "a.jpg":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    first = audit(tmp_path, rows, None, cache=cache)
    assert first.findings[["id", "kind", "detail"]].to_numpy().tolist() == [["a", "unreadable", "Permission denied"]]
    monkeypatch.undo()
    second = audit(tmp_path, rows, None, cache=cache)
    assert (second.counts, second.measured) == ({}, 1)


# Tables


def table_kinds(tmp_path: Path, train: pd.DataFrame, test: pd.DataFrame | None = None) -> list[tuple[str, str, str]]:
    """(part, id, kind) of what is found in the tables alone; their images need not be there."""
    found = audit(tmp_path, train, test).findings
    found = found[found["kind"] != "missing"]
    return list(zip(found["part"], found["id"], found["kind"], strict=True))


def test_two_rows_with_one_file(tmp_path: Path):
    train, test = train_table(["a.jpg", "b.jpg", "a.jpg"]).assign(id=["1", "2", "3"]), test_table(["t.jpg", "b.jpg", "t.jpg"])
    assert table_kinds(tmp_path, train, test.assign(id=["x", "y", "z"])) == [
        ("train", "3", "shared_path"),
        ("test", "y", "shared_path"),
        ("test", "z", "shared_path"),
    ]


@pytest.mark.parametrize("other", ["Cat", "cat ", " cat", "CAT", "ｃａｔ"])
def test_a_label_spelt_in_two_ways(tmp_path: Path, other: str):
    train = train_table(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], ["cat", "dog", other, "cat"])
    assert table_kinds(tmp_path, train) == [("train", "c", "label_spelling")]


@pytest.mark.parametrize(("usual", "other"), [("00", "0"), ("7", "07"), ("\u00e9", "e\u0301")])
def test_numbers_and_accents_spelt_in_two_ways(tmp_path: Path, usual: str, other: str):
    train = train_table(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], [usual, "10", other, usual])
    assert table_kinds(tmp_path, train) == [("train", "c", "label_spelling")]


@pytest.mark.parametrize("label", ["10", "01 x", "dog", "-1"])
def test_labels_that_differ_are_no_finding(tmp_path: Path, label: str):
    assert table_kinds(tmp_path, train_table(["a.jpg", "b.jpg", "c.jpg"], ["1", label, "0"])) == []


@pytest.mark.parametrize("id", ["a ", "\ta", "\ufeffa", "a\u200b", "a\u00a0"])
def test_an_id_with_blanks_at_its_ends(tmp_path: Path, id: str):
    train = train_table(["a.jpg", "b.jpg"]).assign(id=[id, "b"])
    found = audit(tmp_path, train, None).findings
    assert found[found["kind"] == "id_spelling"]["id"].tolist() == [id]


def test_two_ids_that_only_look_the_same_and_two_that_differ_by_case(tmp_path: Path):
    train = train_table(["a.jpg", "b.jpg", "c.jpg", "d.jpg"]).assign(id=["\u00e9", "e\u0301", "x", "X"])
    assert table_kinds(tmp_path, train) == [("train", "e\u0301", "id_spelling")]


@pytest.mark.parametrize("path", ["../a.jpg", "train/../../a.jpg", "/etc/a.jpg", "C:\\a.jpg"])
def test_a_path_that_leads_out_of_the_folder(tmp_path: Path, path: str):
    assert table_kinds(tmp_path, train_table([path, "train/..a.jpg", "train/b..jpg"]).assign(id=["1", "2", "3"])) == [
        ("train", "1", "outside_root")
    ]


# The result


def test_a_clean_competition_has_no_finding_and_no_group(tmp_path: Path):
    write(tmp_path, {f"train/{i}.jpg": of(i) for i in range(30)} | {f"test/{i}.jpg": of(50 + i) for i in range(9)})
    train, test = train_table([f"train/{i}.jpg" for i in range(30)]), test_table([f"test/{i}.jpg" for i in range(9)])
    result = audit(tmp_path, train, test, [*train["path"], *test["path"]])
    assert result.findings.empty
    assert list(result.findings) == COLUMNS
    assert result.counts == {}
    assert (result.groups == "").all()
    assert result.summary() == ["audit: 39 images, 39 of them read anew; 0 findings"]


def test_counts_and_summary_name_each_kind_the_gravest_first(planted: Audit):
    assert set(planted.counts) <= set(KINDS)
    assert list(planted.counts) == [kind for kind in KINDS if kind in planted.counts]
    assert sum(planted.counts.values()) == len(planted.findings) == sum(len(found) for _, found in FILES.values())
    lines = planted.summary()
    assert len(lines) == 1 + len(planted.counts)
    assert "  empty: 1 (file of zero bytes), the first is train/zero_bytes.jpg: 0 bytes" in lines


def test_audit_csv_is_read_back_as_written(planted: Audit, tmp_path: Path):
    planted.write(tmp_path / "new/audit.csv")
    back = pd.read_csv(tmp_path / "new/audit.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(back, planted.findings, check_dtype=False)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["audit.csv"]


def test_audit_csv_that_cannot_be_written_is_told_in_one_line(planted: Audit, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"audit\.csv: can't be written") as caught:
        planted.write(tmp_path / "file/audit.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "fewest"), [(8, 4), (28, 14), (200, 32)])
def test_what_is_tiny_depends_on_what_is_usual(tmp_path: Path, size: int, fewest: int):
    write(tmp_path, {f"{i}.png": encode(picture(i, size, size), "PNG") for i in range(9)})
    write(tmp_path, {"a.png": encode(picture(20, fewest, size), "PNG"), "b.png": encode(picture(21, fewest - 1, size), "PNG")})
    found = audit(tmp_path, train_table([*(f"{i}.png" for i in range(9)), "a.png", "b.png"]), None).findings
    assert found["id"][found["kind"] == "tiny"].tolist() == ["b"]


def test_a_hundred_thousand_rows_without_an_image_take_seconds(tmp_path: Path):
    rows = pd.DataFrame({"id": [f"{i:06d}" for i in range(105_392)]})
    rows = rows.assign(path="train/" + rows["id"].str[-2:] + "/" + rows["id"] + ".jpg", label=rows["id"].str[-2:], group="")
    result = audit(tmp_path, rows, rows[["id", "path"]].head(12_186).assign(path=lambda t: "test/" + t["id"] + ".jpg"))
    assert result.counts == {"missing": 117_578}
    assert (result.images, result.measured) == (0, 0)


# Real pictures


@pytest.mark.skipif(
    not (SHARED / "data/dogs-vs-cats-redux-kernels-edition").is_dir(), reason="the real pictures are not at hand"
)
def test_what_is_known_of_dogs_vs_cats(tmp_path: Path):
    import zipfile

    real = SHARED / "data/dogs-vs-cats-redux-kernels-edition"
    wanted = {
        "test": [f"test/{i}.jpg" for i in (224, 267, 591, 605, 680, 955, *range(1, 120))],
        "train": [f"train/cat.{i}.jpg" for i in (1447, 5942, 6143, 6204, 6329, 412, 2565, 3565, *range(60))]
        + [f"train/dog.{i}.jpg" for i in (74, 180, *range(60))],
    }
    for part, names in wanted.items():
        with zipfile.ZipFile(real / f"{part}.zip") as archive:
            archive.extractall(tmp_path, names)
    competition = built_in("dogs_vs_cats")
    train, test = tables.train_table(competition, tmp_path), tables.test_table(competition, tmp_path)
    result = audit(tmp_path, train, test, tables.listing(tmp_path, "{id}"))
    found = result.findings
    assert list(zip(found["kind"], found["id"], found["twin"], strict=True)) == [
        ("grey_tail", "cat.6329", ""),
        ("leak", "cat.1447", "605"),
        ("leak", "cat.5942", "680"),
        ("exact_duplicate", "cat.6204", "cat.6143"),
        ("exact_duplicate", "267", "224"),
        ("near_duplicate", "cat.3565", "cat.2565"),
        ("near_duplicate", "dog.180", "dog.74"),
        ("near_duplicate", "955", "591"),
    ]
