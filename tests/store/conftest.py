import functools
import shutil

import browser
import pytest
import synthetic


@pytest.fixture
def run_file(tmp_path):
    """A finished run of a 2-D, a 1-D and a 3-D layer."""
    from fastconv.store.writer import write_run

    infos = [
        synthetic.layer_info("conv1", 5),
        synthetic.layer_info("layer1.0.conv/2#1", 7, rank=1, size=33),
        synthetic.layer_info("c3", 2, rank=3, size=4),
    ]
    results = [synthetic.layer_result(info)[0] for info in infos]
    path = tmp_path / "run.h5"
    write_run(path, synthetic.CONFIG, iter(results), samples=synthetic.sample_table())
    return path


@pytest.fixture
def photograph(request):
    """Opens a file in h5web and returns a picture of the page."""
    for program, found in (("chromium", browser.chromium()), ("npm", shutil.which("npm"))):
        if not found:
            pytest.skip(f"{program} is not installed")
    page = browser.build_page(request.config.cache.mkdir("h5web"))
    return functools.partial(browser.photograph, page)
