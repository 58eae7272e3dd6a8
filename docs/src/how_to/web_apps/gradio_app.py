from collections.abc import Iterator

import gradio as gr


def spell(word: str) -> Iterator[str]:
    for end in range(1, len(word) + 1):
        yield word[:end]


demo = gr.Interface(spell, inputs="text", outputs="text")
demo.launch()
