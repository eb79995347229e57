"""The store: published tables and models under one URI, each asset (and partition) with a manifest that names its current version.

    <root>/<asset>/[<partition>/]manifest.json          the pointer, replaced last and atomically
    <root>/<asset>/[<partition>/]<version>/<file>       immutable; `version` is a hash of the content
    <root>/.staging/...                                 what is being written; never read by others
    <root>/.work/...                                    what a worker keeps to resume from

A reader follows the manifest, so it never sees a half-written version, and two writers of one asset leave the one or the other whole.
Any fsspec file system serves (`file`, `s3`, `gs`, `memory`); Parquet and safetensors only, nothing is pickled.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from upath import UPath

_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
LOCAL = ("", "file", "local")
"""Protocols of this machine's disk."""
DATA = "data.parquet"
"""File name of an asset's main table."""


class NotPublishedError(LookupError):
    """Something is read that nobody has published yet."""


class StoredFile(BaseModel):
    """A file of a version: its name within it, bytes and sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What is published of an asset: content version, files, and facts about the run that are not content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: str
    partition: str | None
    version: str
    files: tuple[StoredFile, ...]
    rows: int | None
    published_at: str
    info: dict[str, Any]


class Store:
    """Reads and publishes. `asset` is a key like `prompts` or `responses/careful`; `partition` one of its partitions, or None."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.root = UPath(uri)

    # ------------------------------------------------------------------------------------------------------------------- reading

    def manifest(self, asset: str, partition: str | None = None) -> Manifest | None:
        """The current manifest, or None where nothing is published, or where a published file is gone."""
        try:
            text = (self._place(asset, partition) / "manifest.json").read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        manifest = Manifest.model_validate_json(text)
        folder = self._place(asset, partition) / manifest.version
        return manifest if all((folder / f.name).exists() for f in manifest.files) else None

    def version(self, asset: str, partition: str | None = None) -> str | None:
        """The version that is current, or None where nothing is published."""
        manifest = self.manifest(asset, partition)
        return manifest.version if manifest else None

    def published(self, asset: str, partition: str | None = None) -> Manifest:
        """The current manifest. Raises `NotPublishedError` where there is none."""
        manifest = self.manifest(asset, partition)
        if manifest is None:
            at = f"{asset} [{partition}]" if partition else asset
            raise NotPublishedError(f"{at} is not in the store {self.uri}: materialize it first")
        return manifest

    def path(self, asset: str, partition: str | None = None, name: str = "") -> UPath:
        """Place of a published file, or of the version's folder. Raises `NotPublishedError`."""
        folder = self._place(asset, partition) / self.published(asset, partition).version
        return folder / name if name else folder

    def read(
        self, asset: str, partition: str | None = None, name: str = DATA, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """A published table, whole."""
        return read_table(self.path(asset, partition, name), columns)

    def dataset(self, asset: str, partitions: Iterable[str] | None = None, name: str = DATA) -> ds.Dataset:
        """Published partitions as one lazy data set, in the order given (default: all, sorted)."""
        keys = self.partitions(asset) if partitions is None else list(partitions)
        if not keys:
            raise NotPublishedError(f"{asset} has no partition in the store {self.uri}: materialize at least one first")
        paths = [self._arrow_path(self.path(asset, key, name)) for key in keys]
        quiet = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False))
        return ds.dataset(paths, format=quiet, filesystem=None if self.root.protocol in LOCAL else self.root.fs)

    def partitions(self, asset: str) -> list[str]:
        """Published partitions, sorted."""
        try:
            children = [child.name for child in self._place(asset, None).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(key for key in children if _KEY.match(key) and self.manifest(asset, key) is not None)

    # ---------------------------------------------------------------------------------------------------------------- publishing

    def staging(self, asset: str, partition: str | None = None) -> UPath:
        """A new, empty folder to write a version into."""
        folder = self._folder(self.root / ".staging", asset, partition) / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def work(self, asset: str, partition: str | None = None) -> UPath:
        """The folder in which an asset's worker keeps what it resumes from; the same at every run."""
        folder = self._folder(self.root / ".work", asset, partition)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def cache(self) -> UPath:
        """The folder of what can be made again from elsewhere: de-quantised checkpoints."""
        folder = self.root / ".cache"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(
        self,
        asset: str,
        partition: str | None,
        staged: UPath,
        rows: int | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Make the files of a staged folder the current version. The staged folder is gone afterwards.

        The manifest is replaced last: until then readers have the version before, and a crash leaves it current. Where this version is
        there already, files that were changed or added since are put right.
        """
        files = tuple(describe_files(staged))
        if not files:
            raise ValueError(f"{asset}: nothing is staged in {staged}")
        content = "".join(f"{f.name}\0{f.sha256}\n" for f in files)
        manifest = Manifest(
            asset=asset,
            partition=partition,
            version=hashlib.sha256(content.encode()).hexdigest()[:16],
            files=files,
            rows=rows,
            published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            info=dict(info or {}),
        )
        place = self._place(asset, partition)
        folder = place / manifest.version
        there = {f.name: f.sha256 for f in describe_files(folder)} if folder.exists() else {}
        for file in files:
            target = folder / file.name
            if there.pop(file.name, None) != file.sha256:  # missing, or changed since it was published
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.fs.mv(str(staged / file.name), str(target))
        for stray in there:
            (folder / stray).unlink(missing_ok=True)
        with replacing(place / "manifest.json") as pointer:
            pointer.write_text(manifest.model_dump_json(indent=1))
        staged.fs.rm(str(staged), recursive=True)
        return manifest

    # ------------------------------------------------------------------------------------------------------------------- helpers

    def _place(self, asset: str, partition: str | None) -> UPath:
        return self._folder(self.root, asset, partition)

    @staticmethod
    def _folder(root: UPath, asset: str, partition: str | None) -> UPath:
        parts = [*asset.split("/"), *([] if partition is None else [partition])]
        for part in parts:
            if not _KEY.match(part):
                raise ValueError(
                    f"{part!r} can't be part of a key in the store; use letters, digits, '_', '-' and '.', at most 100 of them"
                )
        return root.joinpath(*parts)

    @staticmethod
    def _arrow_path(path: UPath) -> str:
        return str(path.path)


def describe_files(folder: UPath) -> Iterator[StoredFile]:
    """Name, size and sha256 of every file under a folder, sorted by name; hidden ones are left out."""
    files = sorted((str(p.path)[len(str(folder.path)) :].lstrip("/"), p) for p in folder.rglob("*") if p.is_file())
    for name, path in files:
        if any(part.startswith(".") for part in name.split("/")):
            continue
        sha = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                sha.update(chunk)
        yield StoredFile(name=name, size=path.stat().st_size, sha256=sha.hexdigest())


@contextmanager
def replacing(path: UPath) -> Iterator[UPath]:
    """A hidden name beside a path for the file that is to stand there: it gets the name when all went well, else it is gone.

    On a local disk also for a folder, which takes no other's place: raises OSError where one with something in it is there.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield part
        if part.protocol in LOCAL:
            Path(part.path).replace(path.path)
        else:
            part.fs.mv(str(part), str(path))
    finally:
        if part.exists():
            part.fs.rm(str(part), recursive=part.is_dir())


def write_table(table: pa.Table | pa.RecordBatchReader, path: UPath) -> int:
    """Write a table, or a stream of batches, as Parquet; the number of rows. A failed write leaves no file behind."""
    rows = 0
    with (
        replacing(path) as part,
        part.open("wb") as file,
        pq.ParquetWriter(file, table.schema, compression="zstd") as writer,
    ):
        for batch in table.to_batches() if isinstance(table, pa.Table) else table:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def read_table(path: UPath, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, whole, or the columns named.

    Without Arrow's read-ahead: its threads may still hold a Python file when the interpreter ends, which then aborts the process
    ("terminate called without an active exception", apache/arrow; four in ten short processes on two cores).
    """
    names, local = list(columns) if columns else None, path.protocol in LOCAL
    with path.open("rb") as opened, pq.ParquetFile(path.path if local else opened, pre_buffer=False) as file:
        table = file.read(names)
    return table.select(names) if names else table


def read_batches(path: UPath, columns: Sequence[str] | None = None, rows: int = 10_000) -> Iterator[pa.RecordBatch]:
    """A Parquet file as a stream of batches, in order, without Arrow's read-ahead (see `read_table`)."""
    local = path.protocol in LOCAL
    with path.open("rb") as opened, pq.ParquetFile(path.path if local else opened, pre_buffer=False) as file:
        yield from file.iter_batches(rows, columns=list(columns) if columns else None)


def local_path(path: UPath) -> Path:
    """The path on this machine's disk. Raises ValueError for a store that isn't local."""
    if path.protocol not in LOCAL:
        raise ValueError(f"{path} is not on a local disk")
    return Path(path.path)


def write_json(path: UPath, value: object) -> None:
    """Write JSON. A failed write leaves no file behind."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False))
