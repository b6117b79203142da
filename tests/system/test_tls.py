"""A given cluster that speaks TLS only, with certificates made on the spot."""

from __future__ import annotations

import pytest
import trustme

from ffdask import scheduler
from ffdask.config import load
from ffdask.errors import BadInput
from tests.system.conftest import outside_cluster


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of an authority, and of a certificate by it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    return {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key", "other")}


def keys(files, **other):
    return {f"cluster__tls_{part}": other.get(part, files[part]) for part in ("ca", "cert", "key")}


@pytest.mark.slow
def test_a_run_over_tls_and_nobody_else(train, undisturbed, tmp_path, files, monkeypatch):
    monkeypatch.setattr(scheduler, "CONNECT_SECONDS", 3)
    expected = undisturbed.summary["weights_sha256"]
    flags = [part for name in ("ca", "cert", "key") for part in ("--tls-" + name.replace("ca", "ca-file"), files[name])]
    with outside_cluster(tmp_path, both=[*flags, "--protocol", "tls"]) as address:
        assert address.startswith("tls://")
        run = train(cluster__scheduler=address, **keys(files))
        assert run.summary["weights_sha256"] == expected
        with pytest.raises(BadInput, match="does not answer"):
            train(cluster__scheduler=address.replace("tls://", "tcp://"))
        with pytest.raises(BadInput, match="which takes --tls-ca, --tls-cert and --tls-key"):
            train(cluster__scheduler=address)
        with pytest.raises(BadInput, match="does not answer"):
            train(cluster__scheduler=address, **keys(files, ca=files["other"]))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cluster.tls_ca": "ca.pem"}, "given --tls-ca; TLS takes all of --tls-ca, --tls-cert, --tls-key"),
        ({}, "with the scheduler None; TLS is for a given one"),
        ({"cluster.scheduler": "tcp://127.0.0.1:1"}, "with the scheduler 'tcp://127.0.0.1:1'; TLS is for a given one"),
        ({"cluster.scheduler": "tls://127.0.0.1:1", "cluster.tls_key": "gone.pem"}, "gone.pem, which is no file"),
    ],
)
def test_what_does_not_fit_is_refused(files, changed, said):
    every = (
        {} if "cluster.tls_ca" in changed else {f"cluster.tls_{part}": files[part] for part in ("ca", "cert", "key")}
    )
    with pytest.raises(BadInput, match=said):
        load(None, every | changed)


def test_a_file_that_is_no_certificate_is_named(train, files):
    with pytest.raises(BadInput, match="no authority, certificate and its key in PEM format"):
        train(cluster__scheduler="tls://127.0.0.1:1", **keys(files, cert=files["key"]))
