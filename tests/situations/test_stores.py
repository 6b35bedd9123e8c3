"""Data in object stores and on web servers, and results put there."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from tests.conftest import SMALL
from tests.situations.situation import situation
from tumortrace import open_cohort
from tumortrace.cli.main import run
from tumortrace.errors import RunError
from tumortrace.records import remote, stores
from tumortrace.records.remote import at_hand, cache_folder, deliver, staging
from tumortrace.slides.cohort import open_slides
from tumortrace.slides.identity import content_of
from tumortrace.slides.slide import Slide

SECRET = "s3cret-word"


class Bucket:
    """A bucket of the store, seen by a client of its own."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def put(self, folder: Path, prefix: str) -> None:
        for file in (file for file in folder.rglob("*") if file.is_file()):
            self.client.upload_file(str(file), "lab", f"{prefix}/{file.relative_to(folder).as_posix()}")

    def keys(self, prefix: str) -> list[str]:
        listed = self.client.list_objects_v2(Bucket="lab", Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in listed]

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket="lab", Key=key)["Body"].read())


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """Address of an object store on the loopback."""
    server_module = pytest.importorskip(
        "moto.server", reason="moto is not installed: pip install 'moto[s3]' flask flask-cors"
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """A bucket `lab`; credentials stand in the environment, and the cache is empty."""
    import boto3

    names = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (names | {"AWS_ENDPOINT_URL": service}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))
    client = boto3.client("s3")
    client.create_bucket(Bucket="lab")
    return Bucket(client)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Twelve small images of two classes."""
    draws = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "classes" / ("normal", "tumor")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"p{number}_{number}.png")
    return tmp_path / "classes"


@situation(
    "stores",
    there="a folder of class folders in a bucket",
    typed="tumortrace check s3://lab/data -o s3://lab/checked",
    right="the findings of the same folder on the disk; files of the audit in the bucket, the record last",
)
def test_a_cohort_in_a_bucket(
    bucket: Bucket, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same cohort as on the disk; once fetched, nothing is fetched again until a file changes there."""
    bucket.put(classes, "data")
    cohort, here = open_cohort("s3://lab/data"), open_cohort(classes)
    assert cohort.table[["id", "label"]].equals(here.table[["id", "label"]])
    assert cohort.source is not None
    assert (cohort.source.path, cohort.origin) == ("s3://lab/data", "s3://lab/data")
    shutil.rmtree(tmp_path / "cache")
    assert open_cohort("s3://lab/data").fingerprint == cohort.fingerprint, "on every machine"

    assert run(["check", "s3://lab/data", "-o", "s3://lab/checked"]) == run(
        ["check", str(classes), "-o", str(tmp_path / "c")]
    )
    told = capsys.readouterr().out.splitlines()
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    assert sorted(Path(key).name for key in bucket.keys("checked/")) == sorted(
        p.name for p in (tmp_path / "c").iterdir()
    )
    record = json.loads(bucket.read("checked/audit.json"))
    assert record["data"] == "s3://lab/data"
    assert not list((tmp_path / "cache" / "outputs").rglob("*.json"))
    for file in (file for file in (tmp_path / "cache").rglob("*") if file.is_file()):
        assert SECRET.encode() not in file.read_bytes()

    bucket.client.delete_object(Bucket="lab", Key="data/normal/p0_0.png")
    assert len(open_cohort("s3://lab/data")) == 11


def test_a_table_brings_the_folder_from_which_it_names_files(bucket: Bucket, classes: Path) -> None:
    """As on the disk: files are named from the table's folder."""
    rows = [(path.relative_to(classes).as_posix(), path.parent.name) for path in sorted(classes.rglob("*.png"))]
    pd.DataFrame(rows, columns=["file", "label"]).to_csv(classes / "labels.csv", index=False)
    bucket.put(classes, "tabled")
    cohort = open_cohort("s3://lab/tabled/labels.csv")
    assert cohort.layout == "table"
    assert cohort.table["label"].tolist() == [0] * 6 + [1] * 6


def test_an_interrupted_fetch_is_gone_on_with(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come stays, only the rest is read, and a file appears when it is whole."""
    content = np.random.default_rng(0).bytes(1_000_000)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "big.h5").write_bytes(content)
    bucket.put(tmp_path / "one", "one")
    opened, begun = stores.Store.open, []

    class Torn:
        """A stream that breaks off after 300,000 bytes."""

        def __init__(self, stream: Any) -> None:
            self.stream, self.left = stream, 3

        def read(self, size: int) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise OSError("AWS Error NETWORK_CONNECTION: reset by peer")
            return bytes(self.stream.read(100_000))

    @contextmanager
    def watched(store: Any, file: Any, offset: int = 0) -> Iterator[Any]:
        with opened(store, file, offset) as (stream, begin):
            begun.append(begin)
            yield (Torn(stream) if len(begun) == 1 else stream), begin

    monkeypatch.setattr(stores.Store, "open", watched)
    with pytest.raises(
        RunError, match=r"s3://lab/one/big.h5: cannot be reached .*NETWORK_CONNECTION.*goes on"
    ) as caught:
        at_hand("s3://lab/one/big.h5")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "remote").rglob("*.h5"))
    assert at_hand("s3://lab/one/big.h5").read_bytes() == content
    assert begun == [0, 300_000]
    at_hand("s3://lab/one/big.h5")
    assert len(begun) == 2, "nothing is fetched that is there"


def test_an_interrupted_delivery_is_gone_on_with(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is put once, the run's record after all others: what is there in part is no run."""
    home = staging("s3://lab/runs/one", begun=False)
    for name in ("run.json", "metrics.json", "model/model.json", "model/weights.safetensors", "history.csv"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    put, done = stores.Store.put, []

    def broken(store: Any, file: Path, name: str) -> None:
        if len(done) == 2:
            done.append("broken")
            raise RunError("cannot be reached")
        put(store, file, name)
        done.append(name)

    monkeypatch.setattr(stores.Store, "put", broken)
    with pytest.raises(RunError):
        deliver(home, "s3://lab/runs/one")
    assert len(bucket.keys("runs/one")) == 2
    assert "runs/one/run.json" not in bucket.keys("runs/one")
    deliver(home, "s3://lab/runs/one")
    order = ["history.csv", "model/weights.safetensors", "broken", "model/model.json", "metrics.json", "run.json"]
    assert done == order
    assert not home.exists()
    assert staging("s3://lab/runs/one").joinpath("model", "model.json").read_text() == "model/model.json", "to resume"


@situation(
    "stores",
    there="a run and images in a bucket",
    typed="tumortrace predict s3://lab/RUN s3://lab/data -o s3://lab/predictions.csv",
    right="the bytes of the same on the disk; the record names the URL of the data",
)
def test_predictions_from_a_bucket_into_it(bucket: Bucket, classes: Path, small_run: Path, tmp_path: Path) -> None:
    """Model, images and results are in the store; without -o a run there is refused, as results would be lost."""
    bucket.put(classes, "data")
    bucket.put(small_run / "model", "run/model")
    shutil.copy(small_run / "run.json", tmp_path / "run.json")
    options = ["--allow", "resolution-mismatch", "--device", "cpu"]
    there = ["predict", "s3://lab/run", "s3://lab/data", "-o", "s3://lab/predicted/p.csv", *options]
    here = ["predict", str(small_run), str(classes), "-o", str(tmp_path / "p.csv"), *options]
    assert run(there) == run(here) == 0
    assert bucket.read("predicted/p.csv") == (tmp_path / "p.csv").read_bytes()
    assert json.loads(bucket.read("predicted/p.csv.json"))["data"]["place"] == "s3://lab/data"
    assert run(["stress", "s3://lab/run", "s3://lab/data"]) == 1


@situation(
    "stores",
    there="slides in a bucket",
    typed="tumortrace scan RUN s3://lab/slides -o s3://lab/scans",
    right="each slide is fetched when it is opened, and removed beyond `TUMORTRACE_CACHE_SLIDES`",
)
def test_slides_are_fetched_when_they_are_opened(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed with size and identity, without pixels; opened, they are those of the file; beyond the limit, gone."""
    draws = np.random.default_rng(0)
    (tmp_path / "slides").mkdir()
    for name in ("a.tif", "b.tif"):
        picture = draws.integers(0, 255, (256, 256, 3), np.uint8)
        tifffile.imwrite(tmp_path / "slides" / name, picture, photometric="rgb", tile=(64, 64))
    bucket.put(tmp_path / "slides", "slides")
    monkeypatch.setenv("TUMORTRACE_CACHE_SLIDES", "250000")
    fetched: list[str] = []
    fetch = remote._fetch
    monkeypatch.setattr(
        remote, "_fetch", lambda store, file, copy: (fetched.append(file.name), fetch(store, file, copy))
    )
    cohort = open_slides("s3://lab/slides")
    assert [entry.id for entry in cohort.entries] == ["a", "b"]
    assert not fetched
    names = [content_of(entry.path) for entry in cohort.entries]
    assert all(names)
    for entry in cohort.entries:
        with Slide(entry.path) as slide, Slide(tmp_path / "slides" / entry.path.name) as here:
            size = {"size": (64, 64)}
            assert np.array_equal(slide.read_region(0, 0, 64, 64, **size), here.read_region(0, 0, 64, 64, **size))  # type: ignore[arg-type]
    assert fetched == ["a.tif", "b.tif"]
    with Slide(cohort.entries[0].path):
        assert fetched == ["a.tif", "b.tif"], "the first is still there"
    with Slide(cohort.entries[1].path):
        assert fetched[2:] == ["b.tif"], "the second was beyond the limit"
    assert [content_of(entry.path) for entry in cohort.entries] == names
    open_slides("s3://lab/slides")
    with Slide(cohort.entries[0].path):
        assert len(fetched) == 3


def test_a_scan_of_slides_in_a_bucket(bucket: Bucket, small_run: Path, tmp_path: Path) -> None:
    """The same tiles as of the slides on the disk; called again, they are known and not scanned anew."""
    (tmp_path / "slides").mkdir()
    for number, name in enumerate(("a", "b")):
        picture = np.random.default_rng(number).normal((190, 120, 170), 25, (300, 300, 3)).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(tmp_path / "slides" / f"{name}.tif", picture, photometric="rgb", tile=(64, 64))
    bucket.put(tmp_path / "slides", "slides")
    options = ["--override-resolution", "0.97", "--patch-resolution", "0.97", "--device", "cpu"]
    assert run(["scan", str(small_run), str(tmp_path / "slides"), "-o", str(tmp_path / "here"), *options]) == 0
    for _ in range(2):
        assert run(["scan", str(small_run), "s3://lab/slides", "-o", "s3://lab/scans", *options]) == 0
        for name in ("a", "b"):
            here = (tmp_path / "here" / name / "tiles.csv").read_bytes()
            assert bucket.read(f"scans/{name}/tiles.csv") == here
    assert not list((tmp_path / "cache" / "outputs").rglob("*.csv"))


@pytest.mark.slow
@situation(
    "stores",
    there="images in a bucket, and one for runs",
    typed="tumortrace train s3://lab/data -o s3://lab/runs",
    right="the run in the bucket, its record last; `--resume s3://lab/runs/NAME` goes on with it on any machine",
)
def test_a_training_from_a_bucket_into_it(
    bucket: Bucket, tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record names the URL and the digests of the data, and nothing of the credentials."""
    bucket.put(tissue, "tissue")
    changes = [word for change in (*SMALL, "epochs=1") for word in ("--set", change)]
    words = ["train", "s3://lab/tissue", "--recipe", "tumortrace", "-o", "s3://lab/runs", "--device", "cpu", *changes]
    assert run(words) == 0
    place = capsys.readouterr().out.strip()
    assert place.startswith("s3://lab/runs/")
    key = place.removeprefix("s3://lab/")
    record = json.loads(bucket.read(f"{key}/run.json"))
    assert (record["status"], record["arguments"]["data"]) == ("finished", "s3://lab/tissue")
    assert record["data"]["contents"]["pictures"]
    assert "tumortrace train s3://lab/tissue" in record["command"]
    assert all(SECRET.encode() not in bucket.read(key) for key in bucket.keys(f"{key}/"))
    shutil.rmtree(tmp_path / "cache")
    assert run(["train", "--resume", place]) == 0
    shown = capsys.readouterr()
    assert (shown.out.strip(), "nothing to resume" in shown.err) == (place, True)


def test_a_store_that_refuses_is_one_line(bucket: Bucket, classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No bucket, nothing there, a kind of URL that is not known, a password in one: what was found and what to do."""
    lines = {
        "s3://none/data": "s3://none/data: nothing is there",
        "s3://lab/nothing": "s3://lab/nothing: nothing is there",
        "memory://data": "memory:// is not read or written here; expected s3://",
        f"s3://ada:{SECRET}@lab/data": "a name or password in a URL",
    }
    for url, told in lines.items():
        assert run(["check", url]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert told in line
        assert SECRET not in line
    assert run(["check", str(classes), "-o", "https://lab.org/out"]) == 1
    assert "takes no results" in capsys.readouterr().err
    assert open_cohort(f"file://{classes}").table["id"].equals(open_cohort(classes).table["id"])


def test_refusals_of_stores_are_told_apart() -> None:
    """In the words of the libraries: credentials, an absent bucket, the network."""
    words = {
        "AWS Error ACCESS_DENIED during HeadObject operation": "access is refused",
        "AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation": "nothing is there",
        "curlCode: 7, Could not connect to server": "cannot be reached",
        "403, message='Forbidden', url='https://lab.org/a?X-Amz-Signature=0a1b'": "access is refused",
    }
    for reason, told in words.items():
        with pytest.raises(RunError, match=told) as caught, stores.telling("s3://lab/a"):
            raise OSError(reason)
        assert "Signature" not in str(caught.value)


@pytest.fixture
def web(classes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Address of a web server of that folder."""
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(classes)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@situation(
    "stores",
    there="a file behind a signed address on a web server",
    typed="tumortrace check 'https://lab.org/a.png?X-Amz-Signature=...'",
    right="it is fetched and recorded without the signature",
)
def test_web_servers(web: str, classes: Path) -> None:
    """One file by its address, and a folder by the server's own list of it."""
    file = at_hand(f"{web}/normal/p0_0.png?X-Amz-Signature={SECRET}")
    assert file.read_bytes() == (classes / "normal" / "p0_0.png").read_bytes()
    cohort = open_cohort(f"{web}/")
    assert len(cohort) == 12
    signed = open_cohort(f"{web}/normal/p0_0.png?X-Amz-Signature={SECRET}")
    assert signed.source is not None
    assert signed.source.path == f"{web}/normal/p0_0.png"
    with pytest.raises(RunError, match="nothing is there"):
        at_hand(f"{web}/none.h5")
    assert cache_folder() in file.parents


@situation(
    "stores",
    there="a folder in a store that is larger than the disk",
    typed="tumortrace check s3://lab/patches",
    right="refused in one line before anything is fetched",
)
def test_more_than_the_disk_holds_is_refused(
    web: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is needed, what there is, and the remedy."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 0))
    assert run(["check", f"{web}/"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no room for 0.0 GB, with 0.0 GB free; expected room for a copy" in line
    assert not list((cache_folder() / "remote").rglob("*.png"))
