"""The blocks of code in a document of Markdown, and what they publish.

A module, nothing to run.
"""

import re
from dataclasses import dataclass, field

from harness import Failure

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# In JSON, PHP, Python or JavaScript: what a notification is about, and behind that its id.
MEANS = r"""['"]?\s?(?::|=>)\s?"""
PUBLISHED = re.compile(rf"""(channel|state){MEANS}['"](\w+)['"]\}}*,\s?['"]?id{MEANS}(\d+)""")


@dataclass
class Published:
    """A notification: of a channel, or of an order with this state."""

    is_of_channel: bool
    value: str
    id: int


@dataclass
class Block:
    """What stands between two lines of backticks."""

    language: str
    text: str
    number: int
    # What is written between the block before and this one.
    prose: str
    commands: list = field(init=False)
    published: list = field(init=False)

    def __post_init__(self):
        # A command may go over several lines.
        self.commands = self.text.replace("\\\n", " ").splitlines()
        found = PUBLISHED.findall(self.text)
        self.published = [Published(name == "channel", value, int(id_)) for name, value, id_ in found]

    @property
    def name(self):
        return f"{self.number:02}-{re.sub(r'[^a-z]+', '-', self.commands[-1].lower()).strip('-')[:30]}"


def blocks(document):
    found = []
    end = 0
    for number, match in enumerate(BLOCK.finditer(document), 1):
        found.append(Block(match[1], match[2], number, document[end : match.start()]))
        end = match.end()
    return found


def compare(original, translation):
    """Both have the same blocks in the same order. How many there are."""
    here, there = blocks(original.read_text()), blocks(translation.read_text())
    for ours, theirs in zip(here, there):
        if (ours.language, ours.text) != (theirs.language, theirs.text):
            raise Failure(f"block {ours.number} of {original.name}:\n{ours.text}is another one in {translation.name}:\n{theirs.text}")
    if len(here) != len(there):
        raise Failure(f"{original.name} has {len(here)} blocks of code, {translation.name} has {len(there)}")
    return len(here)
