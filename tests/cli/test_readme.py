"""What README shows of adding to the house from outside it works as shown."""

import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_runs import finish, read_result

README = Path(__file__).resolve().parents[2] / "README.md"
_BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.S)
_COMMAND = re.compile(r"```sh\nPYTHONPATH=\. forgetmenot train (.*?)\n```")


def test_a_method_and_a_data_set_of_ones_own_train_as_the_readme_shows(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = README.read_text(encoding="utf-8")
    for name, content in _BLOCK.findall(text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    reviews = [{"text": f"It was {word} {i}.", "verdict": word} for i in range(10) for word in ("good", "bad")]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(review) + "\n" for review in reviews))
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = _COMMAND.findall(text)
    small = ["model=causal", f"model.path={tiny_model}", "data.retained=[]", "logger=none", "trainer=cpu", "epochs=1"]

    done = finish([*shlex.split(command), *small, "max_length=64"], tmp_path)

    assert done.code == 0, done.stderr
    result = read_result(done.folder)
    assert (result["method"]["name"], result["data"]["name"]) == ("embeddings", "reviews")  # type: ignore[index]
    assert 0 < result["method"]["trainable_percent"] < 100  # type: ignore[index]
