"""Synthetic slices as hospital systems take them: DICOM series and NIfTI volumes.

- dicom.py: `SeriesWriter` encodes the slices of one series, `write_series` puts them in a folder
- nifti.py: `write_volume` puts the slices of one volume into a NIfTI file
- header.py: what a DICOM file says of its series; places.py: where a slice lies; uids.py

Rules of this room: every file says that it is synthetic and what made it, names nobody, and holds
no date, so that the same arguments give the same bytes. pydicom and nibabel are imported by the
functions that need them.
"""
