//! Files read into memory where `sendfile` is off (nginx: ngx_http_copy_filter_module).
//!
//! A block is read only when there is room to send it: a slow client holds one of them.

use config::read::Buffers;
use config::{AnyDirective, Arity, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Broken, Exchange, Filter, LocationBuilder, Module, Piece, Pull};
use net::{Block, Data, FileRange};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::Level;
use std::task::{Context, Poll, ready};
use system::errno::Errno;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_output", "How files are read when `sendfile` is off.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&OUTPUT_BUFFERS];

/// `output_buffers`.
pub static OUTPUT_BUFFERS: Directive<Buffers> =
    Directive::new("output_buffers", &[HTTP, SERVER, LOCATION], read::buffers)
        .takes(Arity::Exactly(2))
        .default("2 32k")
        .syntax("output_buffers NUMBER SIZE;")
        .text(
            "How much of a file is read at a time when `sendfile` is off. One block of SIZE is \
             read when the client has taken what was read before.",
        )
        .moot("a client cannot tell in which steps a file was read")
        .example("output_buffers 1 128k;");

/// The size of a block in a level of the configuration.
pub(crate) fn block_size(scope: &Scope<'_>) -> usize {
    usize::try_from(scope.get(&OUTPUT_BUFFERS).size).unwrap_or(usize::MAX).clamp(1, 16 << 20)
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let block = block_size(scope);
    if !builder.location.settings.sendfile {
        builder.filter(ReadFiles { block });
    }
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
        cx: &mut Context<'_>,
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

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}

/// Reads the next block of `file` and moves its beginning past it.
fn read_block(file: &mut FileRange, size: usize, x: &Exchange) -> Result<Piece, Broken> {
    let wanted = usize::try_from(file.length).unwrap_or(size).min(size);
    let mut block = Block::lend(wanted);
    let room = block.spare();
    let wanted = wanted.min(room.len());
    let read = match rustix::io::retry_on_intr(|| {
        rustix::io::pread(&*file.file, &mut room[..wanted], file.offset)
    }) {
        Ok(read) => read,
        Err(code) => {
            let errno = Errno::from(code);
            x.log_error(Level::Crit, format_args!("pread() failed ({errno})"));
            return Err(Broken);
        }
    };
    if read == 0 {
        let (left, offset) = (file.length, file.offset);
        x.log_error(
            Level::Alert,
            format_args!("a file ends at {offset}, {left} bytes earlier than when it was opened"),
        );
        return Err(Broken);
    }
    block.advance(read);
    file.offset += read as u64;
    file.length -= read as u64;
    Ok(Piece::new(Data::from(block)))
}
