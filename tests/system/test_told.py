"""Records come as events, before the step is known to be done; one that did not come is fetched."""

from __future__ import annotations

import time

from distributed import Client, LocalCluster

from ffdask import graph, told
from ffdask.told import Listener, tell
from tests.system.test_run import Recorder


def shout(run, record):
    tell(run, record)
    return record["name"]


def cluster_of_threads():
    return LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address="127.0.0.1:0")


def test_a_record_is_heard_before_its_task_is_known_to_be_done():
    with cluster_of_threads() as cluster, Client(cluster) as client:
        listener = Listener(client, "mine")
        listener.begin()
        for number in range(100):
            record = {"name": f"step{number}", "loss": 0.5}
            client.submit(shout, "mine", record, pure=False).result()
            assert listener.take(f"step{number}") == record
            assert listener.take(f"step{number}") is None
        listener.end()


def test_two_runs_of_one_client_hear_their_own_and_nothing_stays():
    with cluster_of_threads() as cluster, Client(cluster) as client:
        mine, yours = Listener(client, "mine"), Listener(client, "yours")
        mine.begin()
        yours.begin()
        for run in ("mine", "yours", "another's"):
            client.submit(shout, run, {"name": "step", "run": run}).result()
        assert mine.take("step") == {"name": "step", "run": "mine"}
        mine.end()
        assert yours.take("step") == {"name": "step", "run": "yours"}
        yours.end()
        yours.end()
        assert not told._of_run[client]
        topic, deadline = cluster.scheduler._broker._topics[told.TOPIC], time.monotonic() + 10
        while topic.subscribers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not topic.subscribers


def test_of_a_step_that_was_done_twice_the_last_record_counts():
    with cluster_of_threads() as cluster, Client(cluster) as client:
        listener = Listener(client, "mine")
        listener.begin()
        for loss in (1.0, 2.0):
            client.submit(shout, "mine", {"name": "step", "loss": loss}).result()
        assert listener.take("step")["loss"] == 2.0
        listener.end()


def test_what_a_run_is_is_no_record_of_it():
    with cluster_of_threads() as cluster, Client(cluster) as client:
        listener = Listener(client, "mine")
        listener.begin()
        client.log_event(told.TOPIC, {"run": "mine", "begin": {"layers": 3}})
        client.submit(shout, "mine", {"name": "step", "loss": 0.5}).result()
        assert listener.heard == {"step": {"name": "step", "loss": 0.5}}
        listener.end()


def test_a_run_needs_no_task_for_a_record(train, monkeypatch):
    fetched = []
    real = graph.Graph._helper

    def noted(self, function, *args, **how):
        fetched.append(function.__name__)
        return real(self, function, *args, **how)

    monkeypatch.setattr(graph.Graph, "_helper", noted)
    recorder = Recorder()
    run = train(watchers=[recorder])
    assert "figures" not in fetched
    assert len(recorder.records) == run.summary["steps"] == len({record["name"] for record in recorder.records})


def test_a_record_that_was_not_heard_is_fetched(train, monkeypatch):
    expected = train().summary["weights_sha256"]
    deaf = {"count": 0}
    real = Listener.take

    def take(self, step):
        deaf["count"] += 1
        return None if deaf["count"] % 3 == 0 else real(self, step)

    monkeypatch.setattr(Listener, "take", take)
    recorder = Recorder()
    run = train(watchers=[recorder])
    assert run.summary["weights_sha256"] == expected
    assert len(recorder.records) == run.summary["steps"]
