"""Every video has a tracker of its own."""

from test_youtube_vis_exactly import PLACES, content, frame, square

from queryinst.evaluation.youtube_vis import VideoEvaluator
from queryinst.video_config import TrackerConfig


def test_what_is_too_weak_to_begin_a_track_continues_none_of_another_video():
    one = VideoEvaluator(content(), PLACES, TrackerConfig(by="iou", birth_score=0.5))
    for image_id, score in ((82, 0.9), (30, 0.2), (31, 0.9), (32, 0.2)):
        one.update([image_id], [frame((square(0), 0, 0, score))])
    assert [track.frames for track in one.results[8].tracks.values()] == [[2]]
    assert [track.frames for track in one.results[3].tracks.values()] == [[1, 2]]
