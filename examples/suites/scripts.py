"""Letters and symbols beyond the demo's, each kind with a look, by the names that Unicode gives them."""

from __future__ import annotations

import unicodedata

from examples.demo_suite.canvas import Palette
from examples.demo_suite.foundation_letters import LOOKS
from examples.demo_suite.letters import Script
from examples.demo_suite.looks import CHALKBOARD, PAPER, Look

BANNER = Look(Palette((0.08, 0.17), (0.5, 1.0), (0.75, 1.0)), Palette((0.9, 1.05), (0.5, 1.0), (0.1, 0.45)))
TABLET = Look(
    Palette((0.02, 0.1), (0.3, 0.7), (0.5, 0.8)),
    Palette((0.02, 0.1), (0.2, 0.7), (0.0, 0.25)),
    blotches=(10.0, 40.0),
)


def named(characters: str) -> dict[str, str]:
    """The characters by the last part of their Unicode names: `ka` for "GURMUKHI LETTER KA"."""
    names = (unicodedata.name(character).rpartition("LETTER ")[2] for character in characters)
    return {
        name.lower().replace(" ", "_"): character for name, character in zip(names, characters, strict=True)
    }


SCRIPTS = {
    "gurmukhi": Script(named("ਅਕਗਚਜਟਡਨਬਮਲਸ"), BANNER),
    "malayalam": Script(named("അഇഉകഗചഞടതനമശ"), LOOKS["blueprint"]),
    "cherokee": Script(named("ᎦᎧᎨᎰᎳᎵᎹᎾᏂᏌᏔᏣ"), LOOKS["newsprint"]),
    "tifinagh": Script(named("ⴱⴳⴷⴹⴼⴽⵀⵃⵎⵣⵥⵙ"), LOOKS["neon"]),
    "ugaritic": Script(named("𐎀𐎁𐎂𐎃𐎄𐎅𐎆𐎇𐎈𐎉𐎊𐎋"), TABLET),
    "mathematics": Script(named("∀∂∃∅∇∈∏∑√∞∩∫"), CHALKBOARD),
    "chess": Script(named("♔♕♖♗♘♙♚♛♜♝♞♟"), PAPER),
}
