from __future__ import annotations

import pytest

from fieldstation.station.version import Version, is_version


def test_versions_order_by_number_then_alpha_beta_rc_release():
    texts = ["0.9.9", "1.0.0-alpha.1", "1.0.0-alpha.2", "1.0.0-beta.1", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.10.0"]
    assert [v.root for v in sorted(Version(text) for text in reversed(texts))] == texts


@pytest.mark.parametrize("text", ["1.0", "v1.0.0", "1.0.0-rc", "1.0.0 ", "1.0.0-gamma.1", "1.0.٣", ""])
def test_what_is_no_version_is_refused(text):
    assert not is_version(text)
    with pytest.raises(ValueError, match="is not a version"):
        Version(text)
