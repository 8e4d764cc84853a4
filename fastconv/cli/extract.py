"""`fastconv extract`: a model and a data set in, one HDF5 file out."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastconv.cli.arguments import add_model_and_data, indices, model_and_data, names, shard


def add(parser: argparse.ArgumentParser) -> None:
    add_model_and_data(parser)
    parser.add_argument(
        "-o", "--out", required=True, metavar="RUN.h5", help="the file to make, or a URL"
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--layers",
        type=names,
        action="extend",
        metavar="NAME,...",
        help="names, globs or module types (default: every convolution)",
    )
    what.add_argument("--stage", choices=("conv", "norm", "act"), default="conv")
    what.add_argument("--topk", type=int, default=9, metavar="K", help="hits per filter (9)")
    what.add_argument("--hits-per-sample", type=int, default=1, metavar="N", help="at most (1)")
    orders = ("largest", "smallest", "both")
    what.add_argument("--order", choices=orders, default="largest", help="of hits (largest)")
    what.add_argument("--samples", action="store_true", help="keep max and mean of every sample")
    what.add_argument(
        "--outcomes", action="store_true", help="keep what the model says of every sample"
    )
    what.add_argument("--output", metavar="NAME", help="of the class scores in the model's output")
    what.add_argument("--columns", type=names, metavar="NAME,...", help="kept of dict samples")
    what.add_argument(
        "--conditions",
        metavar="rot15,noise0.1,fgsm2",
        help="the same samples changed, too; in units of --mean and --std (docs/insight.md)",
    )
    what.add_argument(
        "--maps", type=indices, metavar="WHICH", help="keep activation maps: all, 0,5,9 or 0:64"
    )
    storages = ("rounded", "exact", "float16", "uint8")
    what.add_argument("--maps-dtype", choices=storages, default="rounded", help="on the disk")
    modes = ("batchnorm", "zscore", "minmax", "instance", "l1", "l2")
    what.add_argument("--normalize", choices=modes, help="the maps that are kept")
    what.add_argument("--no-quantiles", action="store_true", help="no histograms")
    what.add_argument(
        "--thumbnails",
        action=argparse.BooleanOptionalAction,
        help="reduced whole pictures of samples with hits or maps (default: of small data sets)",
    )
    what.add_argument("--no-patches", action="store_true", help="no pictures of the hits")
    how = parser.add_argument_group("how it runs")
    how.add_argument("--batch-size", type=int, default=64, metavar="N", help="(64)")
    how.add_argument("--num-workers", type=int, default=0, metavar="N", help="that read data (0)")
    how.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the forward")
    how.add_argument("--backend", default="auto", help="see fastconv doctor (auto)")
    how.add_argument(
        "--engine", metavar="NAME", help="ray or ray:N: in tasks of Ray; local: not as a rank"
    )
    how.add_argument(
        "--shard", type=shard, metavar="I/N", help="one share of the work: 0/4 ... 3/4"
    )
    how.add_argument("--overwrite", action="store_true", help="replace a finished file")
    how.add_argument("--no-resume", action="store_true", help="drop the parts of an earlier call")
    how.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import fastconv

    model, data = model_and_data(arguments)
    conditions = None
    if arguments.conditions is not None:
        units = {n: v for n in ("mean", "std") if (v := getattr(arguments, n)) is not None}
        conditions = fastconv.perturb.parse(arguments.conditions, **units)
    with fastconv.extract(
        model,
        data,
        arguments.out,
        layers=arguments.layers,
        stage=arguments.stage,
        topk=arguments.topk,
        hits_per_sample=arguments.hits_per_sample,
        order=arguments.order,
        quantiles=not arguments.no_quantiles,
        patches=not arguments.no_patches,
        samples=arguments.samples,
        outcomes=arguments.outcomes,
        output=_name_or_index(arguments.output),
        columns=arguments.columns or (),
        conditions=conditions,
        maps=arguments.maps,
        maps_dtype=arguments.maps_dtype,
        normalize=arguments.normalize,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        device=arguments.device,
        dtype=arguments.dtype,
        backend=arguments.backend,
        thumbnails=arguments.thumbnails,
        engine=arguments.engine,
        on_error=arguments.on_error or "raise",
        resume=not arguments.no_resume,
        overwrite=arguments.overwrite,
        shard=arguments.shard,
        progress=not arguments.quiet,
    ) as result:
        filters = sum(result[name].info.channels for name in result.layers)
        layers = len(result.layers)
        path = result.path
    size = f", {path.stat().st_size / 1e6:,.1f} MB" if isinstance(path, Path) else ""
    print(f"{arguments.out}: {layers} layers, {filters:,} filters{size}")
    return 0


def _name_or_index(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else text
