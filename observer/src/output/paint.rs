//! Colour and width: what a terminal adds to text, and what it takes away.

use std::io;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Columns where nobody says how many there are: in a file or a pipe.
const WIDTH: usize = 100;
/// On fewer columns than this nothing is readable; there the terminal breaks lines itself.
const WIDTH_MIN: usize = 40;
/// Stands for a space at which a line must not be broken.
const BOUND: char = '\u{a0}';

/// How a reader should take a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Lost, or missing.
    Bad,
    /// Not known, or not wholly as it should be.
    Doubt,
}

/// What text is written on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    width: usize,
    colour: bool,
}

impl Page {
    /// A page of `width` columns without colour.
    pub const fn plain(width: usize) -> Self {
        Self {
            width,
            colour: false,
        }
    }

    /// Standard output.
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let columns = terminal_size_of(&stdout);
        Self::of(&stdout, columns.map(|(Width(columns), _)| columns))
    }

    /// Standard error.
    pub fn stderr() -> Self {
        let stderr = io::stderr();
        let columns = terminal_size_of(&stderr);
        Self::of(&stderr, columns.map(|(Width(columns), _)| columns))
    }

    /// Coloured on a terminal that has colours, if the environment (`NO_COLOR`) has nothing
    /// against it; and on nothing else, whatever the environment wishes: anstream would also
    /// colour where `CI` is set and where `TERM` says that there are no colours.
    fn of(stream: &impl RawStream, columns: Option<u16>) -> Self {
        // A terminal whose size was never set says 0.
        let columns = columns.filter(|columns| *columns > 0);
        Self {
            width: columns.map_or(WIDTH, |columns| WIDTH_MIN.max(columns.into())),
            colour: stream.is_terminal()
                && anstyle_query::term_supports_color()
                && AutoStream::choice(stream) != ColorChoice::Never,
        }
    }

    /// How many columns it has.
    pub const fn width(self) -> usize {
        self.width
    }

    /// `text` in the colour of its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let colour = match tone {
            Tone::Good => AnsiColor::Green,
            Tone::Bad => AnsiColor::Red,
            Tone::Doubt => AnsiColor::Yellow,
        };
        let style = Style::new().bold().fg_color(Some(colour.into()));
        format!("{style}{text}{style:#}")
    }

    /// Lines of a list: the first begins with `bullet`, the others below its text.
    pub(super) fn list(self, bullet: &str, text: &str) -> String {
        let next = " ".repeat(textwrap::core::display_width(bullet));
        format!("{}\n", self.wrap(text, bullet, &next))
    }

    /// The same, with a word in the colour of its tone in front.
    pub(super) fn item(self, bullet: &str, word: &str, tone: Tone, text: &str) -> String {
        self.list(bullet, &format!("{} {text}", self.paint(tone, word)))
    }

    /// A paragraph, its first word in the colour of its tone.
    pub(super) fn paragraph(self, indent: &str, text: &str, tone: Tone) -> String {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let text = format!("{} {rest}", self.paint(tone, word));
        format!("{}\n", self.wrap(text.trim_end(), indent, indent))
    }

    /// Breaks `text` into lines that fit, at spaces outside what `bind` made and nowhere else:
    /// a word that does not fit sticks out. The first line begins with `first`, the others with
    /// `next`.
    pub fn wrap(self, text: &str, first: &str, next: &str) -> String {
        let options = Options::new(self.width)
            .initial_indent(first)
            .subsequent_indent(next)
            .break_words(false)
            .word_separator(WordSeparator::AsciiSpace)
            .word_splitter(WordSplitter::NoHyphenation)
            .wrap_algorithm(WrapAlgorithm::FirstFit);
        textwrap::fill(text, options).replace(BOUND, " ")
    }
}

/// `text` as one word, for [`Page::wrap`].
pub(super) fn bind(text: &str) -> String {
    text.replace(' ', BOUND.encode_utf8(&mut [0; 2]))
}

/// A name from the cluster's objects, safe for a terminal: control characters, which no name has
/// that an API server accepted, are replaced.
pub(super) fn clean(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_at_spaces_and_never_inside_a_word() {
        let page = Page::plain(20);
        assert_eq!(
            page.wrap("one two three four five", "", "  "),
            "one two three four\n  five"
        );
        assert_eq!(
            page.wrap(
                &format!("one {} end", bind("a word of thirty columns, no less")),
                "",
                "  "
            ),
            "one\n  a word of thirty columns, no less\n  end"
        );
    }

    #[test]
    fn colours_take_no_columns() {
        let page = Page {
            width: 12,
            colour: true,
        };
        let text = format!("{} and more", page.paint(Tone::Bad, "LOST"));
        let wrapped = page.wrap(&text, "", "");
        assert_eq!(wrapped.lines().count(), 2, "{wrapped:?}");
        assert!(wrapped.starts_with("\u{1b}["), "{wrapped:?}");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(clean("we\u{1b}[2Jb"), "we\u{fffd}[2Jb");
    }
}
