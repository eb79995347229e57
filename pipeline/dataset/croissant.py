"""Croissant metadata (MLCommons, https://docs.mlcommons.org/croissant) and checksums of the data set's folder."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from upath import UPath

from pipeline.dataset.schema import FILES
from pipeline.settings import Profile
from pipeline.store import StoredFile, describe_files

CROISSANT, CHECKSUMS = "croissant.json", "SHA256SUMS"
SAYS = {
    "train": "Responses with their labels, training split; two consecutive rows a prompt.",
    "validation": "Responses with their labels, validation split; two consecutive rows a prompt.",
    "disagreements": "Every rating of every annotated response, before any was removed; two consecutive rows a prompt.",
    "preference": "Preferences between the two responses of a prompt, derived from ratings; its field `split` is train or val.",
}
"""Record sets, by the last part of their file's path."""


def complete(folder: UPath, profile: Profile, raters: str) -> None:
    """Write `croissant.json`, then `SHA256SUMS`, of the files that lie in a folder."""
    described = croissant(list(describe_files(folder)), profile, raters)
    (folder / CROISSANT).write_bytes((json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode())
    (folder / CHECKSUMS).write_bytes(checksums(describe_files(folder)).encode())


def checksums(files: Iterable[StoredFile]) -> str:
    """Lines as `sha256sum -c` reads them."""
    return "".join(f"{file.sha256}  {file.name}\n" for file in files)


def croissant(files: Sequence[StoredFile], profile: Profile, raters: str) -> dict[str, Any]:
    """Croissant 1.0's JSON-LD: a file object for each file, a record set for each Parquet file of FILES. The same files, the same value.

    It has no date and no version number: the folder is named by its content.
    """
    import mlcroissant as mlc

    endings = {"gz": "application/gzip", "parquet": mlc.EncodingFormat.PARQUET, "md": "text/markdown"}
    metadata = mlc.Metadata(
        name=profile.dataset.name,
        description="Prompts with two responses each, rated from 0 to 4 on helpfulness, correctness, coherence, complexity and verbosity "
        f"by {raters}, in the format of nvidia/HelpSteer2 (arXiv 2406.08673).",
        license=[profile.dataset.licence],
        in_language=[profile.language],
        distribution=[
            mlc.FileObject(
                id=file.name,
                name=file.name,
                content_url=file.name,
                content_size=f"{file.size} B",
                encoding_formats=[endings[file.name.rsplit(".", 1)[-1]]],
                sha256=file.sha256,
            )
            for file in files
        ],
        record_sets=[_record_set(mlc, stem, schema) for stem, schema in FILES.items()],
    )
    described: dict[str, Any] = metadata.to_json()
    return described


def _record_set(mlc: Any, stem: str, schema: pa.Schema) -> Any:
    name = stem.rsplit("/", 1)[-1]
    fields = [_field(mlc, f"{name}/{f.name}", f.type, f"{stem}.parquet", f.name) for f in schema]
    return mlc.RecordSet(id=name, name=name, description=SAYS[name], fields=fields)


def _field(mlc: Any, key: str, type_: pa.DataType, file: str, column: str, path: str | None = None) -> Any:
    """A field of a column; of a list's elements where it is one; of their members where those are structs."""
    inner = type_.value_type if pa.types.is_list(type_) else type_
    common = {"id": key, "name": key.rsplit("/", 1)[-1], "repeated": pa.types.is_list(type_) or None}
    if pa.types.is_struct(inner):
        members = [_field(mlc, f"{key}/{f.name}", f.type, file, column, f.name) for f in inner]
        return mlc.Field(**common, sub_fields=members)
    source = mlc.Source(
        file_object=file,
        extract=mlc.Extract(column=column),
        transforms=[mlc.Transform(json_path=path)] if path else [],
    )
    kinds = {pa.string(): mlc.DataType.TEXT, pa.int64(): mlc.DataType.INTEGER}
    return mlc.Field(**common, data_types=[kinds[inner]], source=source)
