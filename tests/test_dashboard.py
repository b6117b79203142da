"""What the page shows, how the scheduler hears of it, and that none of it can harm a run; without a browser."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections import Counter
from types import SimpleNamespace

import pytest
from conftest import SMALL
from dask.utils import key_split
from distributed import Client, LocalCluster
from distributed.utils import color_of
from test_dashboard_shown import ABOUT, record

import ffdask
from ffdask import dashboard
from ffdask.colours import COLOURS
from ffdask.conduct import conduct
from ffdask.dashboard import page, shown
from ffdask.dashboard.follower import Follower
from ffdask.dashboard.page import Page
from ffdask.schedules.steps import Step
from ffdask.told import Announcement
from ffdask.topic import TOPIC

OPTIONS = {"n_workers": 0, "processes": False, "dashboard_address": "127.0.0.1:0"}


@pytest.fixture
def follower():
    one = Follower()
    tell(one, begin=ABOUT)
    return one


def tell(follower, run="abc", **said):
    follower.log_event(TOPIC, {"run": run, **said})


def scheduler_with(follower, *keys):
    tasks = [SimpleNamespace(key=key) for key in keys]
    return SimpleNamespace(plugins={Follower.name: follower}, workers={"w": SimpleNamespace(processing=tasks)})


def test_the_run_that_began_last_is_shown_until_the_next_begins(follower):
    tell(follower, "abc.1.0", record=record())
    tell(follower, "other.1.0", record=record())
    follower.log_event("another topic", {"run": "abc.1.0", "record": record()})
    first = follower.shown
    assert (first.heard, first.ended) == (1, "")
    tell(follower, end="stopped")
    assert (follower.shown, first.ended) == (first, "stopped")
    tell(follower, begin=ABOUT)
    tell(follower, "abc.2.0", record=record(round_=1))
    assert (follower.shown, first.ended, first.heard) == (first, "", 2)
    tell(follower, "def", begin=ABOUT)
    assert (follower.shown.run, follower.shown.heard) == ("def", 0)
    tell(follower, end="ended")
    assert follower.shown.ended == ""


def test_steps_in_work_are_those_of_the_run_that_workers_have(follower):
    keys = ["train_layer1-visit003-abc.d.0", "train_layer1-visit004-abc.d.0", "head-visit001-abc.d.0"]
    others = ["push_layer1-visit003-abc.d.0", "push_head-visit003-abc.d.0", "train_layer2-visit003-abcd.d.0", ("x", 1)]
    scheduler = scheduler_with(follower, *keys, *others)
    assert follower.in_work(scheduler) == {1: 2, 0: 1}
    assert Follower().in_work(scheduler) == {}


def test_the_page_s_data_follow_the_run(follower):
    seen = Page(scheduler_with(follower, "head-visit000-abc.d.0"))
    assert len(seen.sources["steps"].data["left"]) == 0
    seen.update()
    tell(follower, record=record(start=3, stop=4))
    tell(follower, record=record("push", layer=2, node=1, start=4, stop=4.5))
    seen.update()
    seen.update()
    steps = seen.sources["steps"].data
    assert (steps["left"], steps["right"]) == ([0, 1], [1, 1.5])
    assert steps["colour"][0] == COLOURS[0]
    assert steps["seconds"] == ["1", "0.5"]
    # The push in the lower part of its layer's lane, which is the second.
    assert (steps["top"][1], steps["bottom"][1]) == (1.4, 1.1)
    assert seen.sources["schedule"].data["state"].count("in work") == 1
    assert seen.sources["schedule"].data["state"].count("to come") == 12
    assert seen.sources["accuracy"].data["name"] == ["training, head"]
    assert seen.sources["goodness"].data["ys"][:2] == [[2.0], [0.5]]
    assert seen.sources["utilisation"].data["y"] == [0, 1]
    assert "training" in seen.title.text
    tell(follower, end="ended")
    seen.update()
    assert "<b>ended</b>" in seen.title.text
    assert seen.sources["schedule"].data["state"].count("in work") == 0
    tell(follower, "def", begin=ABOUT | {"dataset": "<script>", "layers": 3, "chapters": 7})
    seen.update()
    assert len(seen.sources["steps"].data["left"]) == 0
    assert "&lt;script&gt;" in seen.title.text
    assert seen.schedule.yaxis.major_label_overrides == {0: "layer 1", 1: "layer 2", 2: "layer 3", 3: "head"}
    assert seen.schedule.x_range.end == 7


def test_a_page_without_a_run_says_so():
    seen = Page(scheduler_with(Follower()))
    seen.update()
    assert "No run has begun" in seen.title.text


def test_a_page_that_lags_behind_takes_what_is_still_there(follower, monkeypatch):
    monkeypatch.setattr(shown, "MOST_BOXES", 5)
    tell(follower, "def", begin=ABOUT)
    seen = Page(scheduler_with(follower))
    for round_ in range(9):
        tell(follower, "def", record=record(round_=round_, start=round_, stop=round_ + 1))
    seen.update()
    assert seen.sources["steps"].data["left"] == [4, 5, 6, 7, 8]


def fetched(address):
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def links(text):
    return re.findall(r"""<(?:script|link|img)[^>]*?(?:src|href)="([^"]*)""", text)


@pytest.mark.parametrize("prefix", ["", "some/prefix"])
def test_the_page_is_served_beside_dask_s_own_with_relative_links_only(prefix):
    options = OPTIONS | {"scheduler_kwargs": {"http_prefix": prefix}}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        base = "/".join([f"http://127.0.0.1:{cluster.scheduler.http_server.port}", *filter(None, [prefix])])
        before = len(cluster.scheduler.http_application.applications)
        dashboard.add_to(client)
        dashboard.add_to(client)
        assert len(cluster.scheduler.http_application.applications) == before + 1
        text = fetched(f"{base}/forward-forward")
        assert len(links(text)) >= 5
        # Where a prefix was given, that is where the page is seen, whatever lies between.
        own = f"/{prefix}/" if prefix else ""
        assert not [link for link in links(text) if re.match(r"/|\w+:", link.removeprefix(own))]
        assert '<a href="forward-forward">Forward-Forward</a>' in text
        assert fetched(f"{base}/status").count('<a href="forward-forward">Forward-Forward</a>') == 1


def test_a_scheduler_hears_of_a_run_that_began_before_the_page_came():
    with LocalCluster(**OPTIONS) as cluster, Client(cluster) as client:
        for said in ({"begin": ABOUT}, {"nonsense": 1}, {"record": record()}):
            client.log_event(TOPIC, {"run": "abc", **said})
        dashboard.add_to(client)
        assert cluster.scheduler.plugins[Follower.name].shown.heard == 1


def test_without_a_dashboard_nothing_is_followed_or_served():
    with LocalCluster(**OPTIONS, scheduler_kwargs={"dashboard": False}) as cluster, Client(cluster) as client:
        assert not cluster.scheduler.http_application.applications
        dashboard.add_to(client)
        client.log_event(TOPIC, {"run": "abc", "begin": ABOUT})
        assert cluster.scheduler.plugins[Follower.name].shown is None
        assert not cluster.scheduler.http_application.applications


def trained(tiny, tmp_path, say=lambda line: None, watchers=(), **keys):
    keys = SMALL | {"data.dataset": str(tiny), "run.out": str(tmp_path / "run")} | keys
    return conduct(ffdask.load(None, keys), say=say, watchers=watchers)


def test_an_embedded_cluster_has_the_page_and_is_told_of_its_run(tiny, tmp_path, monkeypatch):
    followers = []

    class Noted(Follower):
        def __init__(self):
            super().__init__()
            followers.append(self)

    monkeypatch.setattr("ffdask.embedded.Follower", Noted)
    run = trained(tiny, tmp_path, **{"run.evaluate_every": 1})
    (follower,) = followers
    about = {"dataset": "tiny.zarr", "widths": [20, 30], "layers": 2, "head": True, "schedule": "streaming", "nodes": 2}
    assert follower.shown.about == about | {"rounds": 3, "chapters": run.summary["chapters"]}
    assert follower.shown.heard == run.summary["steps"]
    assert follower.shown.ended == "ended"
    assert set(follower.shown.accuracies) == {"training, head", "test, goodness", "test, softmax"}


class Visitor:
    """Opens the page at the first steps of a run."""

    def __init__(self):
        self.answers = Counter()

    def begin(self, resolved, address):
        self.address = address.replace("/status", "/forward-forward")

    def record(self, record):
        if self.answers.total() == 3:
            return
        try:
            fetched(self.address)
        except urllib.error.HTTPError as error:
            self.answers[error.code] += 1
        else:
            self.answers[200] += 1

    def end(self):
        pass


@pytest.mark.parametrize("broken", ["hears nothing", "serves nothing", "shows nothing", "announces nothing"])
def test_nothing_that_goes_wrong_with_the_page_harms_a_run(tiny, tmp_path, monkeypatch, finished, broken):
    called, lines = [], []

    def fail(*_, **__):
        called.append(broken)
        raise RuntimeError(broken)

    if broken == "hears nothing":
        monkeypatch.setattr(Follower, "log_event", fail)
    elif broken == "serves nothing":
        monkeypatch.setattr(page, "serve", fail)
    elif broken == "shows nothing":
        monkeypatch.setattr(Page, "update", fail)
    else:
        monkeypatch.setattr(Announcement, "begin", fail)
    visitor = Visitor()
    run = trained(tiny, tmp_path, lines.append, [visitor])
    assert called
    answer = {"serves nothing": 404, "shows nothing": 500}.get(broken, 200)
    assert visitor.answers == {answer: 3}
    assert run.summary["weights_sha256"] == finished.summary["weights_sha256"]
    named = [line for line in lines if line.startswith("watcher Announcement raised RuntimeError: announces nothing")]
    assert len(named) == (broken == "announces nothing")


@pytest.mark.parametrize(("error", "how"), [(KeyboardInterrupt, "stopped"), (ValueError, "failed"), (None, "ended")])
def test_how_a_run_ended_is_announced(error, how):
    said = []
    client = SimpleNamespace(status="running", log_event=lambda topic, what: said.append((topic, what)))

    def run():
        try:
            if error:
                raise error
        finally:
            Announcement(client, "abc").end()

    if error:
        with pytest.raises(error):
            run()
    else:
        run()
    assert said == [(TOPIC, {"run": "abc", "end": how})]
    client.status = "closed"
    Announcement(client, "abc").end()
    assert len(said) == 1


def test_the_task_stream_has_a_colour_for_each_layer():
    names = [key_split(f"{Step('train', 7, 0, layer).name}-0a1b2c3d.4e.0") for layer in range(1, len(COLOURS) + 1)]
    assert names == [f"train_layer{layer}" for layer in range(1, len(COLOURS) + 1)]
    assert len(set(map(color_of, names))) == len(names)
