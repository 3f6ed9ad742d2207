"""The public endpoints through the real gradio_client, and raw requests that no client would send."""

import json
import re
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from torchvision.io import write_png

README = Path(__file__).parents[2] / "README.md"
SMALL = {"epochs": 2, "num_images": 512, "batch_size": 64, "lr": 0.02}


@pytest.fixture(scope="module")
def client(app):
    connected = Client(app.url, verbose=False)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def rows(client):
    """The rows that one small training streams."""
    return list(client.submit(SMALL, api_name="/train"))


@pytest.fixture(scope="module")
def picture(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "shape.png"
    write_png(images.test.images[0].contiguous(), str(path))
    return path


def begun(app, name: str, data: list, **session) -> str:
    """Sends a raw HTTP request to an endpoint, public or private, and returns the key of its event stream."""
    request = urllib.request.Request(
        f"{app.url}/gradio_api/call/{name}",
        json.dumps({"data": data, **session}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)["event_id"]


def call(app, name: str, data: list, **session) -> str:
    """Sends a raw HTTP request to an endpoint, public or private, and returns the response's event stream."""
    event = begun(app, name, data, **session)
    with urllib.request.urlopen(f"{app.url}/gradio_api/call/{name}/{event}", timeout=300) as stream:
        return stream.read().decode()


def test_exactly_the_documented_endpoints_are_public_and_typed(client):
    """The API lists nothing else, and each parameter and result has a type."""
    api = client.view_api(return_format="dict", print_info=False)
    names = {"/train", "/sweep", "/landscape", "/mistakes", "/classify", "/preview_lr", "/find_lr", "/lessons"}
    assert set(api["named_endpoints"]) == names
    assert api["unnamed_endpoints"] == {}
    for endpoint in api["named_endpoints"].values():
        for part in endpoint["parameters"] + endpoint["returns"]:
            assert part["python_type"]["type"] not in ("Any", ""), endpoint


def test_train_streams_the_rows_of_the_command_line(rows):
    """The stream has steps, each epoch and its checkpoint, and at the end the reason and the run's key."""
    assert [row["epoch"] for row in rows if row["event"] == "epoch"] == [0, 1, 2]
    assert [row["epoch"] for row in rows if row["event"] == "checkpoint"] == [0, 1, 2]
    assert {"loss", "lr", "grad_norm", "step"} <= next(row for row in rows if row["event"] == "step").keys()
    assert rows[-1]["event"] == "finished"
    assert rows[-1]["reason"] == "completed"
    assert len(rows[-1]["checkpoint"]) == 32, "a key, not a path"
    untrained, *_, last = [row for row in rows if row["event"] == "epoch"]
    assert untrained["train_loss"] is None
    assert last["train_loss"] < 2.4


def test_page_api_command_line_and_library_agree(app, client, rows, picture, command_line):
    """All four give one picture and one checkpoint the same probabilities, to 1e-6."""
    key = rows[-1]["checkpoint"]
    folder = app.checkpoints / key
    api = client.predict(handle_file(picture), key, api_name="/classify")["confidences"]
    line = command_line("classify", folder, picture, "--json")
    command = json.loads(line.stdout)["confidences"]

    from trainer import OptimizerLabModel, classify

    library = classify(OptimizerLabModel.from_pretrained(folder), picture).confidences
    page = json.loads(call(app, "_classify", [{"path": uploaded(client, picture)}, key]).split("data: ", 1)[1])[1]
    displayed = {entry["label"]: entry["confidence"] for entry in page["confidences"]}
    assert len(api) == 10
    assert sum(api.values()) == pytest.approx(1, abs=1e-5)
    for other in (command, library):
        assert other == pytest.approx(api, abs=1e-6)
    assert len(displayed) == 5
    assert displayed == pytest.approx({name: api[name] for name in displayed}, abs=1e-6)


def uploaded(client, picture) -> str:
    """Uploads a picture and returns its path on the server."""
    import httpx

    with picture.open("rb") as file:
        response = httpx.post(f"{client.src}gradio_api/upload", files={"files": file}, timeout=300)
    return response.json()[0]


def test_a_lessons_settings_are_a_config_for_training(client):
    """The settings that /lessons returns can be previewed and trained unchanged."""
    lessons = {lesson["name"]: lesson for lesson in client.predict(api_name="/lessons")}
    assert lessons["softmax-plateau"]["settings"]["softmax"] is True
    frozen = {**lessons["sgd-step-per-batch"]["settings"], "epochs": 1}
    lrs = [row["lr"] for row in client.predict(frozen, api_name="/preview_lr")]
    assert lrs[0] == 0.01
    assert lrs[-1] < 1e-6


def test_preview_is_the_schedule_that_the_run_had(client, rows):
    """The preview has the lr that each step then used."""
    planned = {row["step"]: row["lr"] for row in client.predict(SMALL, api_name="/preview_lr")}
    logged = {row["step"]: row["lr"] for row in rows if row["event"] == "step"}
    assert len(planned) == 16
    assert logged == {step: planned[step] for step in logged}


def test_mistakes_have_the_accuracy_of_the_run(client, rows):
    """A class has as many pictures as its row of the matrix; a wrong name is one sentence."""
    found = client.predict(rows[-1]["checkpoint"], api_name="/mistakes")
    assert all(sum(row["taken_for"].values()) == row["pictures"] for row in found["classes"])
    accuracy = [row for row in rows if row["event"] == "epoch"][-1]["test_accuracy"]
    assert found["accuracy"] == pytest.approx(accuracy)
    with pytest.raises(AppError, match="no such checkpoint"):
        client.predict("0" * 32, api_name="/mistakes")


def test_landscape_streams_the_rows_of_the_command_line(client, rows):
    """Its points, and at last the paths; a wrong run is one sentence."""
    key = rows[-1]["checkpoint"]
    found = list(client.submit([key], False, 3, 20, api_name="/landscape"))
    assert [row["event"] for row in found] == ["point"] * 9 + ["landscape"]
    assert found[-2]["fraction"] == 1
    assert [stop["epoch"] for stop in found[-1]["paths"][0]["epochs"]] == [0, 1, 2]
    with pytest.raises(AppError, match="no such checkpoint"):
        client.submit(["0" * 32], api_name="/landscape").result()


def test_find_lr_returns_every_step_and_a_reason(app, client):
    """The result has rising lrs with their losses and a suggestion among them; no run is written to disk."""
    before = set(app.checkpoints.iterdir())
    result = client.predict({"batch_size": 256, "num_images": 512}, api_name="/find_lr")
    assert result.keys() == {"suggestion", "diverges_at", "reason", "rows"}
    lrs = [row["lr"] for row in result["rows"]]
    assert lrs == sorted(set(lrs))
    assert result["rows"][0].keys() == {"lr", "loss", "smoothed"}
    assert lrs[0] < result["suggestion"] < lrs[-1]
    assert result["reason"].endswith(".")
    assert set(app.checkpoints.iterdir()) == before
    with pytest.raises(AppError, match="num_images"):
        client.predict({"num_images": 10**6}, api_name="/find_lr")


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"lr": 0}, "lr"),
        ({"nonsense": 1}, "nonsense"),
        ({"step_size": 3}, "step_size"),
        ({"num_images": 10**6}, "num_images"),
    ],
)
def test_a_wrong_setting_is_explained_in_one_sentence(client, config, word):
    """The client gets the sentence, not a traceback or a bare class name."""
    with pytest.raises(AppError, match=word):
        client.submit(config, api_name="/train").result()


def readme_example(url: str, settings: str) -> str:
    """Returns the training part of the README's example, with the URL and the settings replaced."""
    (example,) = re.findall(r"```python\n(from gradio_client .*?)```", README.read_text(), re.DOTALL)
    example, _, _ = example.partition("client.predict(")
    example = example.replace("http://127.0.0.1:7860", url)
    replaced = example.replace('{"optimizer": "adam", "epochs": 2}', settings)
    assert url in replaced
    assert replaced != example
    return replaced


def test_the_readmes_example_trains(app):
    """Run unchanged on fewer images, it ends with the run's key."""
    names = {}
    exec(readme_example(app.url, f"{SMALL}"), names)
    assert names["row"]["reason"] == "completed"
    assert names["key"] == names["row"]["checkpoint"]
    assert (app.checkpoints / names["key"]).is_dir()
    names["client"].close()


def test_the_readmes_example_raises_the_error_of_a_wrong_setting(app):
    """Iterating over a job of gradio_client hides the error; job.result() in the example raises it."""
    names = {}
    with pytest.raises(AppError, match="lr"):
        exec(readme_example(app.url, '{"lr": 0}'), names)
    names["client"].close()


def test_a_wrong_picture_or_checkpoint_is_explained_in_one_sentence(client, rows, tmp_path):
    """A text file named .png and a guessed key each give one sentence."""
    text = tmp_path / "text.png"
    text.write_text("hello")
    with pytest.raises(AppError, match="picture"):
        client.predict(handle_file(text), rows[-1]["checkpoint"], api_name="/classify")
    for name in ("0" * 32, "", "../..", rows[-1]["checkpoint"] + "/../x", f"{tmp_path}"):
        with pytest.raises(AppError, match=r"no such checkpoint|not the name of a repo"):
            client.predict(handle_file(text), name, api_name="/classify")


def test_no_file_of_the_server_can_be_classified(app, rows, picture, tmp_path):
    """A raw request that names a path cannot read a file that was not uploaded, not even a picture."""
    for path in (str(picture), f"{tmp_path}/../{picture.name}", "/etc/hostname", "http://127.0.0.1:1/x.png", ""):
        for name in ("classify", "_classify"):
            assert "Send a picture file" in call(app, name, [{"path": path}, rows[-1]["checkpoint"]]), (name, path)


def test_nothing_is_fetched_from_an_address(app, client, rows):
    """gradio_client sends a URL as it is, and Gradio's server would fetch it."""
    with pytest.raises(AppError, match="not fetched"):
        client.predict(handle_file("http://127.0.0.1:1/x.png"), rows[-1]["checkpoint"], api_name="/classify")
    address = {"path": "http://93.184.215.14/x.png", "meta": {"_type": "gradio.FileData"}}
    for name in ("classify", "_classify"):
        assert "not fetched" in call(app, name, [address, rows[-1]["checkpoint"]]), name


def test_a_client_that_leaves_stops_its_training(app, client):
    """A cancelled training ends within two seconds, and the run can still be read."""
    before = set(app.checkpoints.iterdir())
    job = client.submit({"epochs": 1000, "num_images": 5000}, api_name="/train")
    while not any(row["event"] == "step" for row in job.outputs()):
        time.sleep(0.1)
    (folder,) = set(app.checkpoints.iterdir()) - before
    job.cancel()
    ended_within(2, folder)


def test_a_client_that_closes_the_stream_stops_its_training(app):
    """Without a word, as when its computer goes to sleep or its program is killed."""
    before = set(app.checkpoints.iterdir())
    event = begun(app, "train", [{"epochs": 1000, "num_images": 5000}, ""])
    with urllib.request.urlopen(f"{app.url}/gradio_api/call/train/{event}", timeout=300) as stream:
        next(line for line in stream if b'"step"' in line)
    (folder,) = set(app.checkpoints.iterdir()) - before
    ended_within(10, folder)


def ended_within(seconds: float, folder: Path) -> None:
    """Waits until a run has been stopped, and fails if that takes longer."""
    started = time.monotonic()
    while (saved := json.loads((folder / "training.json").read_text()))["status"] == "training":
        assert time.monotonic() - started < seconds
        time.sleep(0.05)
    assert saved["status"] == "stopped"


def test_pictures_are_named_by_a_text(app):
    """Any other value than a text or null is refused in a sentence."""
    for data in ({}, {"a": 1}, [], ["synthetic"], 0, 1, True, 0.5):
        assert "data must be a text" in call(app, "train", [SMALL, data]), data


def test_the_server_answers_wrong_shapes_without_dying(app):
    """Missing and extra arguments are refused, and the app keeps running."""
    for data in ([], [None], [1, 2, 3, 4], [{}, {}]):
        with suppress(urllib.error.HTTPError):
            assert "confidences" not in call(app, "classify", data)
    assert app.process.poll() is None
