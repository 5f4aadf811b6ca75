"""scripts/lint_allow.txt: the exceptions, each with its reason. A line is `rule path function: reason`."""

import re
from dataclasses import dataclass

from .source import Finding

LINE = re.compile(r"^(?P<rule>[\w-]+)\s+(?P<path>\S+)\s+(?P<name>\S+?):\s*(?P<reason>.*)$")


@dataclass
class Allowance:
    rule: str
    path: str
    name: str  # of the function, or - for anything in the file
    line: int
    used: bool = False


class AllowList:
    def __init__(self, path: str, text: str):
        self.path = path
        self.allowances: list[Allowance] = []
        self.malformed: list[Finding] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = LINE.match(line)
            if not match or len(match["reason"].split()) < 3:
                self.malformed.append(Finding(path, number, "allow-list", f"got `{line}`, expected `rule path function: reason`"))
            else:
                self.allowances.append(Allowance(match["rule"], match["path"], match["name"], number))

    def permits(self, finding: Finding, name: str = "-") -> bool:
        for allowance in self.allowances:
            if (allowance.rule, allowance.path) == (finding.rule, finding.path) and allowance.name in ("-", name):
                allowance.used = True
                return True
        return False

    def problems(self) -> list[Finding]:
        """Lines that cannot be read, and lines that permit nothing any more."""
        stale = [Finding(self.path, a.line, "allow-list", f"`{a.rule} {a.path} {a.name}` permits nothing; delete it") for a in self.allowances if not a.used]
        return self.malformed + stale
