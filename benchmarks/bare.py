"""A bare Gradio app whose only function returns a label for any picture, to compare ours with."""

import gradio as gr
from gradio.events import api

ANSWER = {"label": "cat", "confidences": {f"class {index}": 0.1 for index in range(10)}}


async def classify(image: gr.FileData, checkpoint: str) -> dict:
    return ANSWER


with gr.Blocks() as page:
    api(classify, api_name="classify", concurrency_limit=None)

if __name__ == "__main__":
    page.launch()
