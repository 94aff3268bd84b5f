from ingest.files.event_file import *
