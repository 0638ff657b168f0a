"""mkdocs hook: files beside docs/ that its pages link to become pages of the site, so that no link leads out of it."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the tracked tables as results/*.md, and the texts at the top level; README.md is the first page."""
    for path in [*(ROOT / name for name in BESIDE), *sorted((ROOT / "results").glob("*.md"))]:
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8").replace("](docs/", "](").replace("](../docs/", "](../")
        uri = {"README.md": "index.md", "results/README.md": "results/index.md"}.get(name, name)
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links out of docs/ point at the pages that `on_files` added."""
    return markdown.replace("](../results/", "](results/")
