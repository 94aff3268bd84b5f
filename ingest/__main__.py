from common.interrupts import end_at_once, run

if __name__ == "__main__":
    end_at_once()
    from ingest.cli import main

    run(main)
