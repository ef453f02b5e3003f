# Calibrated stacking in place of PBC: a constant that seen classes lose, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
model = dict(bias_correction=None, calibration=dict(type='CalibratedStacking'))
sweep = dict(key='model.calibration.constant', values=[0.0, 0.05, 0.1, 0.15, 0.2, 0.3])
