"""The colours of the pages, read from their style, and how well they can be told apart."""

import re

import numpy as np
from jaxtyping import Float


def schemes_of(page: str) -> list[dict[str, Float[np.ndarray, "3"]]]:
    """The light and the dark colours of a page by their names, red, green and blue of 255."""
    parts = page.split(":root {")[1:3]
    return [
        {name: np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], float)
         for name, text in re.findall(r"(--[\w-]+): #(\w{6})", part)}
        for part in parts
    ]  # fmt: skip


def contrast(one: Float[np.ndarray, "3"], other: Float[np.ndarray, "3"]) -> float:
    """WCAG 2's contrast ratio, 1 to 21."""
    light = []
    for colour in (one, other):
        parts = colour / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(light) + 0.05) / (min(light) + 0.05)
