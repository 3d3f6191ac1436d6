//! Files read into memory where `sendfile` is off, and past the kernel's cache where `directio`
//! says so (nginx: ngx_http_copy_filter_module).
//!
//! A block is read only when there is room to send it: a slow client holds one of them.

use config::read::Buffers;
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::{Body, Broken, Exchange, Filter, LocationBuilder, Module, Piece, Pull};
use net::{Block, Data, FileRange};
use rustix::fs::{Mode, OFlags};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::Level;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::{Context as Waiting, Poll, ready};
use system::errno::Errno;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_output", "How files are read, and when output is sent.")
};

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&OUTPUT_BUFFERS, &POSTPONE_OUTPUT, &DIRECTIO, &DIRECTIO_ALIGNMENT];

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// `output_buffers`.
pub static OUTPUT_BUFFERS: Directive<Buffers> =
    Directive::new("output_buffers", PLACES, read::buffers)
        .takes(Arity::Exactly(2))
        .default("2 32k")
        .syntax("output_buffers NUMBER SIZE;")
        .text(
            "How much of a file is read at a time when `sendfile` is off. One block of SIZE is \
             read when the client has taken what was read before.",
        )
        .moot("a client cannot tell in which steps a file was read")
        .example("output_buffers 1 128k;");

static POSTPONE_OUTPUT: Directive<u64> = Directive::new("postpone_output", PLACES, read::size)
    .default("1460")
    .syntax("postpone_output SIZE;")
    .text("How much output is collected before it is sent.")
    .moot("output leaves as soon as there is nothing more to add to it without waiting")
    .example("postpone_output 0;");

/// `directio`: from which length on; none: never.
static DIRECTIO: Directive<Option<u64>> = Directive::new("directio", PLACES, read_directio)
    .default("off")
    .syntax("directio SIZE | off;")
    .text(
        "Reads files of SIZE or more past the kernel's cache, so that large files, each read \
         rarely, do not drive out of it what is read often. `sendfile` is not used for them.",
    )
    .example("directio 16m;");

fn read_directio(args: &Args<'_>) -> Result<Option<u64>, Invalid> {
    match args.word(0).bytes() {
        b"off" => Ok(None),
        _ => read::offset(args).map(Some),
    }
}

static DIRECTIO_ALIGNMENT: Directive<u64> =
    Directive::new("directio_alignment", PLACES, read::offset)
        .default("512")
        .syntax("directio_alignment SIZE;")
        .text("At multiples of how many bytes files are read when `directio` is on.")
        .moot("it is 4096 where less is asked for, and no file system wants more")
        .example("directio_alignment 4k;");

/// What every file system and disk accepts.
const ALIGNMENT: usize = 4096;
/// Alignments beyond this are of no use.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// The size of a block in a level of the configuration.
pub(crate) fn block_size(scope: &Scope<'_>) -> usize {
    usize::try_from(scope.get(&OUTPUT_BUFFERS).size).unwrap_or(usize::MAX).clamp(1, 16 << 20)
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let block = block_size(scope);
    scope.find(&POSTPONE_OUTPUT);
    let alignment = scope.get(&DIRECTIO_ALIGNMENT).min(MAX_ALIGNMENT) as usize;
    let alignment = alignment.next_power_of_two().max(ALIGNMENT);
    if let Some(from) = scope.get(&DIRECTIO) {
        builder.filter(ReadDirectly { from, block: block.next_multiple_of(alignment), alignment });
    }
    if !builder.location.settings.sendfile {
        builder.filter(ReadFiles { block });
    }
}

/// The filter of `directio`.
struct ReadDirectly {
    /// Bytes of a file from which on it is read so.
    from: u64,
    block: usize,
    alignment: usize,
}

impl Filter for ReadDirectly {
    fn apply(&self, x: &mut Exchange) {
        let Body::Whole(Data::File(range)) = &x.response.body else { return };
        let size = rustix::fs::fstat(&range.file).map_or(0, |stat| stat.st_size as u64);
        if size < self.from {
            return;
        }
        // A descriptor of its own: the one at hand may be shared with other requests.
        let path = format!("/proc/self/fd/{}", range.file.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => {
                let range = FileRange { file: Rc::new(file), ..*range };
                let (block, alignment) = (self.block, self.alignment);
                x.response.body = Body::Stream(Box::new(DirectReader { range, block, alignment }));
            }
            Err(code) => {
                let errno = Errno::from(code);
                x.log_error(Level::Alert, format_args!("open(O_DIRECT) failed ({errno})"));
            }
        }
    }
}

/// A file that is read past the kernel's cache.
struct DirectReader {
    /// What is still to be read.
    range: FileRange,
    block: usize,
    alignment: usize,
}

impl Pull for DirectReader {
    fn poll_pull(
        &mut self,
        _: &mut Waiting<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        if self.range.length == 0 {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(self.read(x).map(Some))
    }
}

impl DirectReader {
    /// Reads a block whose place in the file and in memory is a multiple of the alignment, and
    /// drops what was not asked for.
    fn read(&mut self, x: &Exchange) -> Result<Piece, Broken> {
        let mut block = Block::lend(self.block + self.alignment);
        let room = block.spare();
        let pad = room.as_ptr().align_offset(self.alignment);
        let before = self.range.offset % self.alignment as u64;
        let from = self.range.offset - before;
        let room = room.get_mut(pad..).unwrap_or_default();
        let whole = room.len() / self.alignment * self.alignment;
        let wanted = whole.min(self.block);
        let read = rustix::io::retry_on_intr(|| {
            rustix::io::pread(&*self.range.file, &mut room[..wanted], from)
        });
        let read = read.map_err(|code| unreadable(x, code))? as u64;
        if read <= before {
            return Err(too_short(x, &self.range));
        }
        block.advance(pad + read as usize);
        let useful = (read - before).min(self.range.length);
        let mut data = Data::from(block);
        data.advance(pad as u64 + before);
        let data = data.split_to(useful);
        self.range.offset += useful;
        self.range.length -= useful;
        Ok(Piece::new(data))
    }
}

fn unreadable(x: &Exchange, code: rustix::io::Errno) -> Broken {
    let errno = Errno::from(code);
    x.log_error(Level::Crit, format_args!("pread() failed ({errno})"));
    Broken
}

fn too_short(x: &Exchange, range: &FileRange) -> Broken {
    let (left, offset) = (range.length, range.offset);
    x.log_error(
        Level::Alert,
        format_args!("a file ends at {offset}, {left} bytes earlier than when it was opened"),
    );
    Broken
}

struct ReadFiles {
    block: usize,
}

impl Filter for ReadFiles {
    fn apply(&self, x: &mut Exchange) {
        if matches!(x.response.body, Body::Whole(Data::File(_))) {
            let body = std::mem::take(&mut x.response.body);
            x.response.body = Body::Stream(Box::new(Reader::new(body, self.block)));
        }
    }
}

/// A body whose parts of files come as memory.
pub(crate) struct Reader {
    body: Body,
    /// What is still to be read of the current part.
    file: Option<FileRange>,
    block: usize,
}

impl Reader {
    /// Reads the files of `body` in blocks of at most `block` bytes.
    pub(crate) fn new(body: Body, block: usize) -> Reader {
        Reader { body, file: None, block }
    }
}

impl Pull for Reader {
    fn poll_pull(
        &mut self,
        cx: &mut Waiting<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            if let Some(file) = &mut self.file {
                if file.length > 0 {
                    return Poll::Ready(read_block(file, self.block, x).map(Some));
                }
                self.file = None;
            }
            match ready!(self.body.poll_pull(cx, x)) {
                Ok(Some(Piece { data: Data::File(file), .. })) => self.file = Some(file),
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Waiting<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}

/// Reads the next block of `file` and moves its beginning past it.
fn read_block(file: &mut FileRange, size: usize, x: &Exchange) -> Result<Piece, Broken> {
    let wanted = usize::try_from(file.length).unwrap_or(size).min(size);
    let mut block = Block::lend(wanted);
    let room = block.spare();
    let wanted = wanted.min(room.len());
    let read = rustix::io::retry_on_intr(|| {
        rustix::io::pread(&*file.file, &mut room[..wanted], file.offset)
    });
    let read = read.map_err(|code| unreadable(x, code))?;
    if read == 0 {
        return Err(too_short(x, file));
    }
    block.advance(read);
    file.offset += read as u64;
    file.length -= read as u64;
    Ok(Piece::new(Data::from(block)))
}
