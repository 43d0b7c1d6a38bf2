"""evalsink's close-out of the one settled run in a state folder, as a worker's close-out thread does it."""

import sys
from pathlib import Path

from stamps import Stamps

from consumer.assembly import tools
from consumer.filesystem import Disk
from consumer.runs import checkpoint
from consumer.runs.book import RunBook
from consumer.runs.closeout import close_out
from consumer.runs.spool import Spool
from consumer.settings import Settings


def main() -> None:
    state, output, group = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    disk = Disk()
    settings = Settings(state=str(state), output=str(output), group=group)
    book = RunBook(
        Spool(state, open_files_max=settings.open_files_max),
        checkpoint.load(state, group=group, topic_ids={}, disk=disk),
    )
    [(partition, run)] = [(number, run) for number in book.partitions for run in book.settled(number)]
    stamps = Stamps()
    stamps.mark("ready")
    stamps.first()
    closed = close_out(book.spooled(partition, run), tools(settings, "bench", disk))
    stamps.mark("read")
    assert closed.status == "complete", closed
    stamps.tell(closed.rows)


if __name__ == "__main__":
    main()
