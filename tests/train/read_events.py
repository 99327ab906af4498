#!/usr/bin/env python3
"""Reads with TensorBoard (PyPI: tensorboard) what the program test_train writes.

    read_events.py TEST_TRAIN        # 77, which CTest shows as skipped, where there is no TensorBoard
"""
import os
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing import event_accumulator, event_file_loader
    from tensorboard.plugins.hparams import metadata
except ImportError:
    print("SKIPPED: this Python has no tensorboard")
    sys.exit(77)


if not __debug__:
    sys.exit("run without -O: what is checked here is checked by assert")


def main():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], "--test-case=events of every kind*"], check=True, env={**os.environ, "STRATA_EVENTS_FOLDER": folder})
        accumulator = event_accumulator.EventAccumulator(folder, size_guidance={event_accumulator.TENSORS: 0})
        accumulator.Reload()
        tags = accumulator.Tags()
        assert set(tags["scalars"]) == {"losses/l_pix", "metrics/psnr"}, tags
        loss = accumulator.Scalars("losses/l_pix")
        assert [event.step for event in loss] == list(range(20))
        assert abs(loss[10].value - 0.36787944) < 1e-6
        assert all(event.wall_time > 1.7e9 for event in loss)
        assert set(tags["images"]) == {"samples/one", "samples/batch/0", "samples/batch/1"}, tags
        picture = accumulator.Images("samples/one")[0]
        assert (picture.height, picture.width, picture.step) == (5, 7, 3)
        check_png(picture.encoded_image_string)
        assert set(tags["distributions"]) == {"weights/head", "weights/none"}, tags
        histogram = accumulator.Histograms("weights/head")[0].histogram_value
        assert (histogram.min, histogram.num) == (-5, 100) and abs(histogram.max - 4.9) < 1e-6
        assert sum(histogram.bucket) == 100 and len(histogram.bucket) == len(histogram.bucket_limit)
        assert all(a < b for a, b in zip(histogram.bucket_limit, histogram.bucket_limit[1:]))
        below_zero = sum(count for limit, count in zip(histogram.bucket_limit, histogram.bucket) if limit <= 0)
        assert below_zero == 50, below_zero
        assert accumulator.Histograms("weights/none")[0].histogram_value.num == 0
        assert "notes/text_summary" in tags["tensors"], tags
        assert accumulator.Tensors("notes/text_summary")[0].tensor_proto.string_val[0] == b"a **bold** note"
        content = accumulator.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        start = metadata.parse_session_start_info_plugin_data(content).hparams
        assert start["lr"].number_value == 1e-3 and start["optimizer"].string_value == "adam" and start["augment"].bool_value is True
        content = accumulator.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
        experiment = metadata.parse_experiment_plugin_data(content)
        assert {info.name for info in experiment.hparam_infos} == {"lr", "optimizer", "augment", "depth"}
        assert experiment.metric_infos[0].name.tag == "metrics/psnr"

        # As the program tensorboard loads it, with what it makes of old kinds of events.
        file = os.path.join(folder, os.listdir(folder)[0])
        kinds = {}
        for event in event_file_loader.EventFileLoader(file).Load():
            for value in event.summary.value:
                kinds[value.tag] = value.WhichOneof("value")
        assert len(kinds) == 10 and set(kinds.values()) == {"tensor"}, kinds
    print("tensorboard: 20 scalars, 3 images, 2 histograms, a text and hyperparameters read")


def check_png(data):
    try:
        from PIL import Image
    except ImportError:
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        return
    import io
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.size == (7, 5) and image.mode == "RGB"
    assert image.getpixel((0, 0)) == (0, round(255 / 105), round(2 * 255 / 105)), image.getpixel((0, 0))


main()
