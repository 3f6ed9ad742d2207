"""DatasetAddress: which pictures of which dataset on the Hub."""

import re
from dataclasses import dataclass

_CONFIG = r"(?!\s)[^<>:/\\|?*@\x00-\x1f\x7f\ud800-\udfff]{1,96}(?<!\s)"  # what `datasets` allows; it may have spaces
# The Hub's rule: neither part begins or ends with a dot or a dash, so ./here is not a repository.
_PATTERN = re.compile(
    r"(?P<repo_id>\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b)"
    rf"(?::(?P<config>{_CONFIG}))?"
    r"(?:@(?P<revision>[\w./-]{1,250}))?"
    r"(?:\?label=(?P<label>[\w.-]{1,96}))?",
    re.ASCII,
)
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class DatasetAddress:
    """A dataset, its configuration, its revision, and its column of labels; None stands for the default of each.

    As text it is `owner/name[:config][@revision][?label=column]`.
    """

    repo_id: str
    config: str | None = None
    revision: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        """Returns the text that `parse` reads."""
        parts = ((":", self.config), ("@", self.revision), ("?label=", self.label))
        return self.repo_id + "".join(sign + part for sign, part in parts if part)

    @property
    def is_fixed(self) -> bool:
        """Whether the revision is a commit: the address then names the same pictures for ever."""
        return bool(_COMMIT.fullmatch(self.revision or ""))


def parse(text: str) -> DatasetAddress | None:
    """Returns the address that a text stands for; None if it is not one."""
    match = _PATTERN.fullmatch(text)
    return DatasetAddress(**match.groupdict()) if match else None
