"""Files of this machine at counted:// URLs, whose reads are noted."""

from pathlib import Path
from typing import ClassVar

from fsspec.spec import AbstractFileSystem


class Counted(AbstractFileSystem):
    """Files of this machine, whose reads are noted."""

    protocol = "counted"
    reads: ClassVar[list] = []

    def info(self, path, **options):
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def cat_file(self, path, start=None, end=None, **options):
        self.reads.append((start, end))
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)
