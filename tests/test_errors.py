"""Sentences for the user: strings that keep the template that they were made from."""

import json
import pickle

import pytest

from trainer.errors import Message, UserError, as_clause


def test_a_message_is_a_string_with_a_template():
    """str() keeps it, also for an exception; a value may contain braces."""
    error = UserError("There is no run in {folder}.", folder="{a}")
    assert isinstance(error, ValueError)
    assert (str(error), f"{error}") == ("There is no run in {a}.",) * 2
    assert (str(error).template, str(error).values) == ("There is no run in {folder}.", {"folder": "{a}"})
    assert str(UserError(str(error))).values == {"folder": "{a}"}
    assert as_clause(str(error)) == "there is no run in {a}"
    assert as_clause(str(error)).template == str(error).template


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_messages_and_errors_can_be_pickled(protocol):
    """They keep their templates and are not filled in again."""
    error = UserError("{what} has {count:,} pictures.", what=Message("The folder {folder}", folder="{x}"), count=1234)
    copied = pickle.loads(pickle.dumps(error, protocol))
    assert type(copied) is UserError
    assert str(copied) == "The folder {x} has 1,234 pictures."
    assert str(copied).values["what"].values == {"folder": "{x}"}


def test_a_message_as_json():
    """Reading it restores the message."""
    cure = Message("Try an lr of {lr}.", lr="0.01")
    message = Message("In epoch {epoch} it diverged. {cure}", epoch=3, cure=cure)
    again = Message.from_json(json.loads(json.dumps(message.to_json())))
    assert again == message
    assert (again.template, again.values["epoch"], again.values["cure"].template) == (
        message.template,
        3,
        cure.template,
    )


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        {},
        {"text": "x", "template": 3, "values": {}},
        {"text": "x", "template": "{x}", "values": {"x": None}},
        {"text": "x", "template": "{x}", "values": {"x": [1]}},
        {"text": "x", "template": "{x}", "values": {"x": {"text": "y"}}},
    ],
)
def test_other_json_is_no_message(data):
    """It raises an error, because a stranger may have written the file."""
    with pytest.raises(ValueError, match="no message"):
        Message.from_json(data)


def test_a_strangers_template_is_not_filled_in():
    """It could use all memory, or read an object's attributes."""
    message = Message.from_json({"text": "short", "template": "{x:>999999999} {x.__class__}", "values": {"x": "y"}})
    assert message == "short"
