# Context in OTSeg's windows, 480 at steps of 80, in place of whole images. Not comparable with the paper, nor quite
# with OTSeg, whose images have a short side of 520.
_base_ = ['../../alignzeg_context.py']
trained_by = 'configs/alignzeg_context.py'
model = dict(test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(80, 80)))
