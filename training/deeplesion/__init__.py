"""A benchmark on the public data set DeepLesion: recall of the lesions whose report names an axillary lymph node.

Yan et al., J Med Imaging 2018;5(3):036501 (the data set) and CVPR 2019 (LesaNet: labels mined from the reports).
"""
