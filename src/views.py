"""Views of an image for test-time augmentation, as the configuration writes them: hflip * scales(1.0, 1.15)."""

import ast
from dataclasses import dataclass, replace

CORNERS = ("centre", "top left", "top right", "bottom left", "bottom right")
TURNING = ("hflip", "vflip", "turns")  # whether they keep the label is the competition's to say
LARGEST = 4.0
LONGEST, MOST = 200, 128  # characters of an expression, and views: each costs as much as predicting without TTA


@dataclass(frozen=True)
class View:
    """An image cut, mirrored, then turned. `scale`: the side as a multiple of the model's own; `crop`: of which it is cut."""

    scale: float = 1.0
    crop: float = 1.0
    corner: str = "centre"
    mirrored: bool = False
    turns: int = 0  # quarters, counter-clockwise

    def flipped(self) -> "View":
        return replace(self, mirrored=not self.mirrored, turns=-self.turns % 4)

    def turned(self, quarters: int) -> "View":
        return replace(self, turns=(self.turns + quarters) % 4)

    def __str__(self) -> str:
        parts = [f"scale {self.scale:g}"] if self.scale != 1 else []
        parts += [f"crop {self.crop:g} {self.corner}"] if self.crop != 1 else []
        turned = "vflip" if self.mirrored and self.turns == 2 else ""
        parts += [turned] if turned else (["hflip"] * self.mirrored + [f"turn {90 * self.turns}"] * bool(self.turns))
        return " ".join(parts) or "identity"


IDENTITY = View()


def read_views(expression: str) -> tuple[View, ...]:
    """The views of an expression: every combination of its factors, each once, as it is first.

    Factors: identity; hflip and vflip, with and without; turns, the four quarter turns; scales(1.0, 1.15), the image larger or
    smaller; crops(1.15), centre and corners of an image so much larger. Raises ValueError for anything else.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"{expression[:20]!r}…: {len(expression):,} characters; at most {LONGEST}")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(f"{expression!r} can't be read; write it as in hflip * scales(1.0, 1.15)") from None
    views = [IDENTITY]
    for factor in _factors(tree, expression):
        views = [seen for view in views for seen in _multiply(view, factor)]
        if len(views) > MOST:
            raise ValueError(f"{expression!r}: more than {MOST} views")
    return tuple(dict.fromkeys(views))


def described(views: tuple[View, ...], mean: str) -> str:
    """What predictions say of themselves: "identity, hflip; mean of probabilities"; a single view has no mean."""
    return ", ".join(map(str, views)) + (f"; mean of {mean}" if len(views) > 1 else "")


def keeping_views(label_preserving: tuple[str, ...]) -> tuple[View, ...]:
    """Every combination of what a competition declares label-preserving, the image as it is first."""
    return read_views(" * ".join(("identity", *label_preserving)))


def forbidden(expression: str, label_preserving: tuple[str, ...]) -> list[str]:
    """The expression's factors that the competition does not declare label-preserving."""
    named = {node.id for node in ast.walk(ast.parse(expression.strip(), mode="eval")) if isinstance(node, ast.Name)}
    return [name for name in TURNING if name in named and name not in label_preserving]


def _factors(tree: ast.expr, expression: str) -> list[tuple[str, tuple[float, ...]]]:
    """hflip * scales(1.0, 1.15) → [("hflip", ()), ("scales", (1.0, 1.15))]."""
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult):
        return [*_factors(tree.left, expression), *_factors(tree.right, expression)]
    if isinstance(tree, ast.Name) and tree.id in ("identity", *TURNING):
        return [(tree.id, ())]
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
        name, numbers = tree.func.id, tuple(_number(argument) for argument in tree.args)
        lowest = {"scales": 0.25, "crops": 1.0}.get(name)
        if lowest is not None and numbers and (name == "scales" or len(numbers) == 1):
            if all(lowest <= number <= LARGEST for number in numbers) and numbers != (1.0,):
                return [(name, numbers)]
            raise ValueError(
                f"{ast.unparse(tree)!r} in {expression!r}: from {lowest:g} to {LARGEST:g}, and more than 1.0 alone"
            )
    raise ValueError(
        f"{ast.unparse(tree)!r} in {expression!r} is no view; there are hflip, vflip, turns, scales(1.0, 1.15), crops(1.15), "
        "joined by *"
    )


def _number(argument: ast.expr) -> float:
    value = argument.value if isinstance(argument, ast.Constant) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def _multiply(view: View, factor: tuple[str, tuple[float, ...]]) -> list[View]:
    name, numbers = factor
    if name == "hflip":
        return [view, view.flipped()]
    if name == "vflip":
        return [view, view.flipped().turned(2)]
    if name == "turns":
        return [view.turned(quarters) for quarters in range(4)]
    if name == "scales":
        return [replace(view, scale=view.scale * scale) for scale in numbers]
    if name == "crops":
        return [replace(view, crop=view.crop * numbers[0], corner=corner) for corner in CORNERS]
    return [view]
