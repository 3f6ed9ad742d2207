"""A page whose handler records whether its client listens, and yields the requested number of messages."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gradio as gr

from ui.jobs.listeners import listener

answers = {}


async def wait(name, num_messages):
    is_listening = listener(5)
    answers[name] = []
    for number in range(int(num_messages)):
        yield str(number)
    while not answers[name] or answers[name][-1]:
        answers[name].append(is_listening())
        await asyncio.sleep(0.05)


with gr.Blocks() as page:
    name, number, result, data = gr.Textbox(), gr.Number(), gr.Textbox(), gr.JSON()
    name.submit(wait, [name, number], result, api_name="wait", concurrency_limit=None)
    name.submit(lambda name: answers.get(name, []), name, data, api_name="answers", concurrency_limit=None)
page.queue()
page.launch(ssr_mode=False)
