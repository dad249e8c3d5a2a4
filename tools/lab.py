"""JupyterLab, so that opening a notebook changes nothing (`make lab`).

When a kernel starts, JupyterLab notes in the notebook which Python it has. On saving, nbdev's hook takes that
out again, since it differs between machines. Without more, each notebook would look changed as soon as it is
opened. So JupyterLab is given the notebook with what the kernel is going to say."""

import sys

from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager


def with_kernel(metadata: dict, specs) -> dict:  # of a notebook; the kernels that are installed
    "What the metadata are as soon as the notebook's kernel has started; another language's stay as they are."
    name = metadata.get("kernelspec", {}).get("name", "")
    if name not in specs.find_kernel_specs() or (spec := specs.get_kernel_spec(name)).language != "python":
        return metadata
    known = dict(name=name, display_name=spec.display_name, language=spec.language)
    return metadata | dict(kernelspec=known, language_info=IPythonKernel.language_info)


class Notebooks(AsyncLargeFileManager):
    "Files as they are, notebooks as their kernel will know them."

    async def get(self, path, content=True, type=None, **other):
        model = await super().get(path, content=content, type=type, **other)
        if model["type"] == "notebook" and content:
            model["content"]["metadata"] = with_kernel(
                model["content"]["metadata"], self.parent.kernel_spec_manager
            )
        return model


if __name__ == "__main__":
    from jupyterlab.labapp import main

    hook = "--ContentsManager.pre_save_hook=nbdev.clean.clean_jupyter"
    ours = [hook, "--ServerApp.contents_manager_class=__main__.Notebooks"]
    sys.exit(main(["--LabApp.default_url=/lab/tree/nbs/index.ipynb", *ours, *sys.argv[1:]]))
