"""The preference study of section 4.2 and appendix C: page, pairing, vote store, analysis."""

APP_VERSION = "1"  # stands in every vote; raised whenever the page changes what a participant sees or may do
