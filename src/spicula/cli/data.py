"""The commands that end with data: datasets, download, index, convert, relink, phantom."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from spicula.cli.tools import Command, json_option, list_rejected, positive, print_json

# datasets


def _describe_datasets(command: argparse.ArgumentParser) -> None:
    json_option(command)


def _datasets(options: argparse.Namespace) -> int:
    from spicula.acquire.sources import SOURCES
    from spicula.catalog import DATASETS

    rows = [
        {
            "name": d.name,
            "title": d.title,
            "source": d.source,
            "terms": d.terms,
            "download": SOURCES[d.name].way,
            "citation": d.citation,
        }
        for d in DATASETS.values()
    ]
    if options.json:
        return print_json(rows)
    for row in rows:
        print(f"{row['name']:12} {row['title']}")
        for key in ("source", "terms", "download", "citation"):
            if row[key]:
                print(f"{'':12} {key}: {row[key]}")
    return 0


# download


def _describe_download(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "what",
        metavar="DATASET",
        help="a dataset (see: spicula datasets), a .tcia manifest, tcia:COLLECTION or idc:COLLECTION",
    )
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder for the archive")
    command.add_argument(
        "--from", dest="source", choices=("tcia", "idc", "web"), help="which archive (default: the dataset's own)"
    )
    some = command.add_mutually_exclusive_group()
    some.add_argument("--patients", metavar="N", type=positive, help="only the first N patients")
    some.add_argument(
        "--series", metavar="FILE", type=Path, help="only these series: a .tcia manifest, or UIDs in lines"
    )
    command.add_argument("--patient", metavar="ID", action="append", default=[], help="only this patient (repeatable)")
    command.add_argument("--modality", metavar="CODE", help="only series of this modality (MG, SEG, ...)")
    command.add_argument("--licence", metavar="TEXT", help='only series under this licence ("CC BY 3.0")')
    command.add_argument("--jobs", metavar="N", type=positive, default=8, help="downloads at a time (default 8)")
    command.add_argument("--mirror", metavar="URL", help="a copy to take from first: s3://..., gs://... or file:///...")
    command.add_argument("--fill-mirror", action="store_true", help="put what comes from upstream into the mirror")
    command.add_argument(
        "--credentials", metavar="FILE", type=Path, help="user name and password, one a line (default: the keyring)"
    )
    command.add_argument("--server", metavar="URL", help="another server that speaks the archive's interface")
    json_option(command)


def _download(options: argparse.Namespace) -> int:
    from spicula import acquire

    account = acquire.download(
        acquire.Request(
            what=options.what,
            to=options.to,
            source=options.source,
            patients=options.patients,
            series_file=options.series,
            patient_ids=tuple(options.patient),
            modality=options.modality,
            licence=options.licence,
            jobs=options.jobs,
            mirror=options.mirror,
            fill_mirror=options.fill_mirror,
            credentials=options.credentials,
            server=options.server,
        )
    )
    if options.json:
        print_json(account.as_json())
    else:
        print(account.as_text())
    return 1 if account.failed else 0


# index


def _describe_index(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", metavar="DATASET", help="which dataset; see: spicula datasets")
    command.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        type=Path,
        required=True,
        help="the archive or its folder, as downloaded",
    )
    command.add_argument("--to", metavar="FILE", type=Path, required=True, help="the Index to write (Parquet)")
    command.add_argument(
        "--option", metavar="KEY=VALUE", action="append", default=[], help="an option of the dataset (a TOML value)"
    )
    command.add_argument(
        "--official-split-as-is",
        action="append_const",
        dest="option",
        const="official_split_as_is=true",
        help="keep the published split even where it puts one person on both sides (cbis-ddsm)",
    )
    json_option(command)


def _index(options: argparse.Namespace) -> int:
    from spicula import files, index
    from spicula.catalog import get, index_dataset
    from spicula.recipe import parse_options

    reading = index_dataset(
        options.dataset, options.source, options.to.parent / "unpacked", parse_options(options.option, "--option")
    )
    rejected_path = options.to.with_name(f"{options.to.stem}-rejected.parquet")
    index.write(options.to, reading.index)
    files.write_table(rejected_path, reading.rejected)
    counts = {"images": len(reading.index)}
    counts |= {f"{of}s": len(set(reading.index[f"{of}_id"].to_pylist()) - {None}) for of in ("patient", "exam")}
    expected = get(options.dataset).expected
    result = {
        "index": str(options.to),
        **counts,
        "whole_archive": dict(expected),
        "rejected": len(reading.rejected),
        "rejected_table": str(rejected_path),
    }
    if options.json:
        return print_json(result)
    list_rejected(reading.rejected)
    words = [f"{counts[what]} {what}" + (f" of {whole}" if whole else "") for what, whole in _beside(counts, expected)]
    print(f"{options.to}: {', '.join(words)}; {len(reading.rejected)} rejected or reported, in {rejected_path}")
    return 0


def _beside(counts: dict[str, int], expected: Mapping[str, int]) -> list[tuple[str, int | None]]:
    """Return what was counted, each with the number that the whole archive has; exams only where there are any."""
    return [(what, expected.get(what)) for what in counts if counts[what] or what != "exams"]


# convert


def _describe_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("index", metavar="INDEX", type=Path, help="the images: an Index (Parquet)")
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to write")
    command.add_argument("--root", metavar="DIR", type=Path, help="where the images are, when they were moved")
    command.add_argument(
        "--format",
        choices=("png16", "png8", "webdataset", "tfrecord", "parquet", "dicom"),
        help="what to write (default png16; png8 for --preset vindr)",
    )
    command.add_argument(
        "--preset",
        choices=("raw", "display", "vindr", "whole-image"),
        default="raw",
        help="raw: every bit as stored; display: as a workstation shows it; vindr, whole-image: as published studies"
        " prepare images (default raw)",
    )
    command.add_argument(
        "--window", metavar="N", type=int, default=0, help="display: which of a file's windows, from 0 (default 0)"
    )
    command.add_argument("--scale-to-16", action="store_true", help="raw: stretch the stored bits over 16 bits")
    command.add_argument("--clahe", action="store_true", help="vindr: equalise local contrast (limit 2.0, tiles 8 x 8)")
    command.add_argument("--crop", action="store_true", help="vindr: crop to the breast (Otsu)")
    command.add_argument("--shard-size", metavar="MB", type=positive, default=256, help="of shards (default 256)")
    command.add_argument("--deidentify", action="store_true", help="basic profile of DICOM PS3.15, pseudonyms for ids")
    command.add_argument(
        "--key-file",
        metavar="FILE",
        type=Path,
        help="what links pseudonyms to ids; keep it private (with --deidentify)",
    )
    command.add_argument("--engine", choices=("local", "ray"), default="local", help="where work runs (default local)")
    command.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster (default: one on this machine)")
    command.add_argument("--jobs", metavar="N", type=positive, help="processes (default: one a core)")
    json_option(command)


def _convert(options: argparse.Namespace) -> int:
    from spicula import convert

    outcome = convert.convert(
        options.index,
        options.to,
        convert.Settings.of(
            format=options.format,
            preset=options.preset,
            window=options.window,
            scale_to_16=options.scale_to_16,
            clahe=options.clahe,
            crop=options.crop,
            shard_mb=options.shard_size,
            deidentify=options.deidentify,
        ),
        root=options.root,
        key_file=options.key_file,
        engine=options.engine,
        address=options.address,
        jobs=options.jobs,
    )
    if options.json:
        print_json(outcome.as_json())
    else:
        list_rejected(outcome.rejected)
        print(outcome.as_text())
    return 1 if len(outcome.rejected) else 0


# relink


def _describe_relink(command: argparse.ArgumentParser) -> None:
    command.add_argument("key_file", metavar="KEY", type=Path, help="the key file of a de-identification")
    command.add_argument("pseudonyms", metavar="PSEUDONYM", nargs="+", help="of a patient, exam or image, or a UID")
    json_option(command)


def _relink(options: argparse.Namespace) -> int:
    from spicula.deidentify import Pseudonyms

    links = Pseudonyms.open(options.key_file)
    found = {pseudonym: links.original_of(pseudonym) for pseudonym in options.pseudonyms}
    if options.json:
        print_json(found)
    for pseudonym, original in found.items():
        if original is None:
            print(f"spicula: {options.key_file} knows no pseudonym {pseudonym}", file=sys.stderr)
        elif not options.json:
            print(f"{pseudonym}\t{original}")
    return 1 if None in found.values() else 0


# phantom


def _describe_phantom(command: argparse.ArgumentParser) -> None:
    command.add_argument("--exams", metavar="N", type=positive, required=True, help="how many exams, four views each")
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to make them in")
    command.add_argument("--seed", metavar="N", type=int, default=0, help="another seed gives other women (default 0)")
    command.add_argument(
        "--density", choices=tuple("ABCD"), help="of all breasts (default: as in a screened population)"
    )
    command.add_argument(
        "--prevalence",
        metavar="P",
        type=float,
        default=0.5,
        help="share of women with a malignant lesion (default 0.5)",
    )
    command.add_argument(
        "--size", metavar="PX", type=positive, nargs=2, default=(1024, 832), help="rows and columns (default 1024 832)"
    )
    command.add_argument("--jobs", metavar="N", type=positive, help="processes (default: one a core)")


def _phantom(options: argparse.Namespace) -> int:
    from spicula.phantoms import make_exams

    folder = make_exams(
        options.to,
        options.exams,
        seed=options.seed,
        size=tuple(options.size),
        jobs=options.jobs,
        prevalence=options.prevalence,
        density=options.density,
    )
    print(f"{folder}: {options.exams} synthetic exams")
    return 0


COMMANDS = (
    Command("datasets", "what Spicula knows, where each comes from, its terms", _describe_datasets, _datasets),
    Command("download", "fetch an archive, checked and resumable", _describe_download, _download),
    Command("index", "read an archive and its metadata into one table", _describe_index, _index),
    Command("convert", "write images as PNG, shards or de-identified DICOM", _describe_convert, _convert),
    Command("relink", "say which id a pseudonym stands for, by the private key file", _describe_relink, _relink),
    Command("phantom", "make synthetic four-view DICOM exams with known lesions", _describe_phantom, _phantom),
)
