//! Journal export format, as `journalctl --output=export` writes it (systemd's `JOURNAL_EXPORT_FORMATS.md`): fields
//! `NAME=value`, or `NAME`, the length in 8 bytes and the bytes; an empty line ends an entry.

/// Bytes of a field that are kept; longer fields count as missing.
const MAX_FIELD: usize = 64 * 1024;

/// Fields that are kept.
const FIELDS: [&[u8]; 7] = [
    b"__CURSOR",
    b"__REALTIME_TIMESTAMP",
    b"_HOSTNAME",
    b"SYSLOG_IDENTIFIER",
    b"SYSLOG_PID",
    b"_PID",
    b"MESSAGE",
];

/// The fields of one entry, in the order of [`FIELDS`].
#[derive(Debug, Default)]
struct Fields([Option<Vec<u8>>; FIELDS.len()]);

/// A complete entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalEntry<'a> {
    /// Where `journalctl --after-cursor` continues.
    pub(super) cursor: &'a [u8],
    /// Microseconds since the epoch, in digits.
    pub(super) realtime: &'a [u8],
    pub(super) host: &'a [u8],
    /// `postfix/smtp`.
    pub(super) identifier: &'a [u8],
    pub(super) pid: &'a [u8],
    pub(super) message: &'a [u8],
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Line,
    /// The length of a binary field.
    Length(Option<usize>),
    /// So many bytes are missing of a binary field.
    Value(Option<usize>, u64),
    /// The line end after a binary field.
    ValueEnd,
}

/// Splits the output into entries, however it is cut into pieces.
#[derive(Debug, Default)]
pub(super) struct JournalExport {
    state: State,
    /// The beginning of a line or of a binary field. One byte more than [`MAX_FIELD`] stands for any more.
    held: Vec<u8>,
    fields: Fields,
}

impl JournalExport {
    pub(super) fn on_bytes(
        &mut self,
        mut bytes: &[u8],
        mut on_entry: impl FnMut(JournalEntry<'_>),
    ) {
        while !bytes.is_empty() {
            match self.state {
                State::Line => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        return self.hold(bytes);
                    };
                    self.hold(bytes.get(..end).unwrap_or_default());
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                    if self.on_line() {
                        let fields = std::mem::take(&mut self.fields);
                        on_entry(fields.entry());
                    }
                }
                State::Length(field) => {
                    let missing = size_of::<u64>() - self.held.len();
                    let (head, rest) = bytes.split_at(missing.min(bytes.len()));
                    self.held.extend_from_slice(head);
                    bytes = rest;
                    if let Ok(length) = <[u8; 8]>::try_from(self.held.as_slice()) {
                        self.held.clear();
                        self.state = State::Value(field, u64::from_le_bytes(length));
                    }
                }
                State::Value(field, missing) => {
                    let now = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
                    let (head, rest) = bytes.split_at(now);
                    self.hold(head);
                    bytes = rest;
                    let missing = missing.saturating_sub(now as u64);
                    if missing > 0 {
                        self.state = State::Value(field, missing);
                    } else {
                        let value = std::mem::take(&mut self.held);
                        self.fields.set(field, value);
                        self.state = State::ValueEnd;
                    }
                }
                State::ValueEnd => {
                    bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
                    self.state = State::Line;
                }
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = (MAX_FIELD + 1).saturating_sub(self.held.len());
        self.held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Takes the line that is held; returns whether it ends an entry.
    fn on_line(&mut self) -> bool {
        let mut line = std::mem::take(&mut self.held);
        if line.is_empty() {
            return true;
        }
        match memchr::memchr(b'=', &line) {
            Some(equals) => {
                let field = field(line.get(..equals).unwrap_or_default());
                // The rest of a longer line is not held.
                if field.is_some() && line.len() <= MAX_FIELD {
                    line.drain(..=equals);
                    self.fields.set(field, line);
                } else {
                    line.clear();
                    self.held = line;
                }
            }
            None => self.state = State::Length(field(&line)),
        }
        false
    }
}

fn field(name: &[u8]) -> Option<usize> {
    FIELDS.iter().position(|known| *known == name)
}

impl Fields {
    fn set(&mut self, field: Option<usize>, value: Vec<u8>) {
        if let Some(place) = field.and_then(|field| self.0.get_mut(field))
            && value.len() <= MAX_FIELD
        {
            *place = Some(value);
        }
    }

    fn entry(&self) -> JournalEntry<'_> {
        let [cursor, realtime, host, identifier, syslog_pid, pid, message] =
            self.0.each_ref().map(|value| value.as_deref());
        JournalEntry {
            cursor: cursor.unwrap_or_default(),
            realtime: realtime.unwrap_or_default(),
            host: host.unwrap_or_default(),
            identifier: identifier.unwrap_or_default(),
            pid: syslog_pid.or(pid).unwrap_or_default(),
            message: message.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(pieces: &[&[u8]]) -> Vec<String> {
        let (mut export, mut found) = (JournalExport::default(), Vec::new());
        for piece in pieces {
            export.on_bytes(piece, |entry| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let JournalEntry { cursor, realtime, host, identifier, pid, message } = entry;
                let all = [cursor, realtime, host, identifier, pid, message].map(text);
                found.push(all.join("|"));
            });
        }
        found
    }

    #[test]
    fn entries_in_every_piece() {
        let mut export = b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=17\n_HOSTNAME=mx\nX=y=z\n\
            SYSLOG_IDENTIFIER=postfix/smtp\n_PID=1\nSYSLOG_PID=42\nMESSAGE=a=b\n\n__CURSOR=s=3\nMESSAGE\n"
            .to_vec();
        let value = b"c\nMESSAGE=d\n\xff";
        export.extend_from_slice(&(value.len() as u64).to_le_bytes());
        export.extend_from_slice(value);
        export.extend_from_slice(b"\n_PID=7\n\n");
        let whole = messages(&[&export]);
        assert_eq!(whole, ["s=1;i=2|17|mx|postfix/smtp|42|a=b", "s=3||||7|c\nMESSAGE=d\n\u{fffd}"]);
        for cut in 0..export.len() {
            let (head, tail) = export.split_at(cut);
            assert_eq!(messages(&[head, tail]), whole, "{cut}");
        }
    }

    #[test]
    fn long_fields_are_missing() {
        let mut export = b"__CURSOR=1\nMESSAGE=".to_vec();
        export.resize(export.len() + MAX_FIELD + 1, b'a');
        export.extend_from_slice(b"\n_PID\n");
        export.extend_from_slice(&(2 * MAX_FIELD as u64).to_le_bytes());
        export.resize(export.len() + 2 * MAX_FIELD, b'1');
        export.extend_from_slice(b"\n_HOSTNAME=mx\n\n");
        let mut split = JournalExport::default();
        for piece in export.chunks(1000) {
            split.on_bytes(piece, |entry| {
                assert_eq!((entry.pid.len(), entry.message.len()), (0, 0));
                assert_eq!((entry.cursor, entry.host), (&b"1"[..], &b"mx"[..]));
            });
            assert!(split.held.len() <= MAX_FIELD + 1);
        }
        assert_eq!(messages(&[&export]), ["1||mx|||"]);
    }
}
