"""`cohort train` and `cohort merge`: what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import torch
import yaml

from cohort.analysis.configuration import flat
from tests.cli.command import SMALL, SUMS, run


def test_a_run_has_a_folder_with_everything(done):
    folder, out, err = done
    stored = flat(yaml.safe_load((folder / "config.yaml").read_text()))
    assert (stored["method"], stored["steps"], stored["reward"]) == ("grpo", 2, ["number"])
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2]
    assert all({"loss", "grad_norm", "reward/mean", "reward/number", "time/step"} <= set(row) for row in metrics)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["method"], summary["steps"], summary["stopped"]) == ("grpo", 2, False)
    assert summary["sampled_tokens"] > 0
    for step in (1, 2):
        table = pyarrow.parquet.read_table(folder / "rollouts" / f"step-{step:06d}.parquet").to_pydict()
        assert len(table["completion"]) == 4
        assert set(table["prompt"]) <= {f"<|user|>{row['prompt']}<|assistant|>" for row in SUMS}
        assert all(len(t) == len(m) <= 8 for t, m in zip(table["tokens"], table["mask"], strict=True))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000002"]
    assert (folder / "tensorboard").is_dir()
    assert "step 2/2" in err
    assert "2 steps, " in out
    assert "the model: runs/grpo-tiny-1/final" in out


def test_the_trained_model_is_loaded_by_transformers(done):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _, _ = done
    tokenizer = AutoTokenizer.from_pretrained(folder / "final")
    model = AutoModelForCausalLM.from_pretrained(folder / "final")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1="}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|user|>1+1=<|assistant|>"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert ids.shape == (1, 6)
    assert model(ids).logits.isfinite().all()


def test_the_next_run_has_the_next_number_and_a_configuration_file_repeats_a_run(done, monkeypatch):
    folder, _, _ = done
    monkeypatch.chdir(folder.parent.parent)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["out"]
    Path("again.yaml").write_text(yaml.safe_dump(config))
    status, out, err = run("train", "--config", "again.yaml", "--set", "record_every=0", "--quiet")
    assert (status, out, err) == (0, "", "")
    again = folder.parent / "grpo-tiny-2"
    assert not (again / "rollouts").exists()

    def numbers(path):
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    assert numbers(again) == numbers(folder)


def test_train_says_the_accuracies_that_were_sampled_and_the_greedy_ones(done):
    folder, out, _ = done
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = summary["accuracy_first_step"], summary["accuracy_last_step"]
    assert (first, last) == (rows[0]["accuracy"], rows[-1]["accuracy"])
    assert f"accuracy of the rollouts it drew: {first:.1%} in step 1, {last:.1%} in step {len(rows)} (sampled)" in out


def test_an_adapter_is_trained_and_merged(here, model):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = ["--model", model, "--data", "sums.jsonl", "--reward", "format:[0-4]"]
    status, out, err = run("train", "grpo", *data, "--steps", "1", "--lora", "4", "--out", "run", *SMALL)
    assert status == 0, err
    assert "cohort merge run/final --out run/merged" in out
    assert (here / "run/final/adapter_config.json").is_file()
    status, _, err = run("eval", "run/final", "--data", "sums.jsonl", "--reward", "number")
    assert status == 2
    assert "cohort merge run/final" in err
    status, out, err = run("merge", "run/final", "--out", "run/merged")
    assert (status, out, err) == (0, "", "the model: run/merged\n")
    ids = AutoTokenizer.from_pretrained("run/merged")("1+1=", return_tensors="pt")["input_ids"]
    merged = AutoModelForCausalLM.from_pretrained("run/merged")
    adapted = AutoPeftModelForCausalLM.from_pretrained("run/final")
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)
    # A folder in use, and one that is no adapter.
    assert "run/merged already holds something" in run("merge", "run/final", "--out", "run/merged")[2]
    status, _, err = run("merge", model, "--out", "other")
    assert status == 2
    assert "holds no LoRA adapter" in err
    status, _, err = run("merge", "run/finel", "--out", "other")
    assert (status, err) == (2, "cohort: there is no folder run/finel: name the one that holds the LoRA adapter\n")
    assert not (here / "other").exists()


def test_a_reward_that_fails_stops_the_run_with_status_3_and_what_was_done_is_kept(here, model):
    (here / "mine.py").write_text(
        "CALLS = []\n\n\ndef fragile(completions):\n    CALLS.append(1)\n"
        "    if len(CALLS) > 1:\n        raise OSError('the judge is gone')\n    return [1.0] * len(completions)\n"
    )
    data = ["--model", model, "--data", "sums.jsonl", "--reward", "mine.py:fragile", "--out", "run"]
    status, _, err = run("train", "grpo", *data, "--steps", "3", "--quiet", *SMALL)
    assert status == 3
    assert err.startswith("cohort: reward 'fragile' failed on sums.jsonl, line ")
    assert "OSError: the judge is gone" in err
    assert "in fragile" in err
    assert len((here / "run/metrics.jsonl").read_text().splitlines()) == 1
    assert [path.name for path in (here / "run/checkpoints").iterdir()] == ["step-000001"]
    assert not (here / "run/final").exists()
