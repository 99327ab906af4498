"""Where pages lie in the site: docs/index.md is its front, and the rest of docs/ beside it."""


def on_files(files, config):
    for file in files.documentation_pages():
        if file.src_uri == "README.md":  # MkDocs takes it for the front page
            file.dest_uri = file.url = "readme.html"
        elif file.src_uri.startswith("docs/"):
            file.dest_uri = file.url = file.dest_uri.removeprefix("docs/")
    return files
