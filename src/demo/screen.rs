//! The terminal: a picture drawn in place, and the keys that touch the members.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use anyhow::ensure;
use crossterm::cursor::{Hide, MoveTo, MoveToNextLine, Show};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::members::Member;
use super::picture::Picture;
use super::tips::{self, Tip};

/// How often the thread that reads keys looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Lines above the tips.
const ABOVE: usize = 12;
/// The keys, as the screen names them.
const KEYS: &str = "Keys: 1-4 choose a member, + slower, - faster, x stop or restart, q quit";

/// Whether the terminal is ours, so that a panic anywhere gives it back once.
static OPEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours; dropping it gives it back as it was.
#[derive(Debug)]
pub struct Screen {
    keys: UnboundedReceiver<Event>,
    chosen: usize,
}

/// What a key was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressed {
    /// Something that is shown changed.
    Redraw,
    /// The end.
    Quit,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Strong,
    Chosen,
    Alarm,
    Faint,
}

type Line = (Tone, String);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be written to, or its keys cannot be read.
    pub fn open() -> io::Result<Self> {
        let (sender, keys) = unbounded_channel();
        let screen = Self { keys, chosen: 0 };
        restore_on_panic();
        OPEN.store(true, SeqCst);
        terminal::enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        std::thread::Builder::new().name("demo-keys".into()).spawn(move || read(&sender))?;
        Ok(screen)
    }

    /// Draws a picture over the last one.
    ///
    /// # Errors
    /// When the terminal is gone, or something panicked and gave it back.
    pub fn draw(&self, picture: &Picture, tips: &[Tip]) -> anyhow::Result<()> {
        ensure!(OPEN.load(SeqCst), "a part of the demo panicked");
        let (width, height) = terminal::size()?;
        let lines = lay_out(picture, tips, self.chosen, width.into(), height.into());
        let mut out = Vec::new();
        paint(&lines, width.into(), &mut out)?;
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        Ok(stdout.flush()?)
    }

    /// Waits for a key that means something, and does what it says.
    pub async fn key(&mut self, members: &[std::sync::Arc<Member>]) -> Pressed {
        loop {
            match self.keys.recv().await {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if let Some(pressed) = self.press(key, members) {
                        return pressed;
                    }
                }
                Some(Event::Resize(..)) => return Pressed::Redraw,
                Some(_) => {}
                None => return Pressed::Quit,
            }
        }
    }

    fn press(&mut self, key: KeyEvent, members: &[std::sync::Arc<Member>]) -> Option<Pressed> {
        let member = &members[self.chosen];
        match key.code {
            KeyCode::Char('c' | 'd') if key.modifiers == KeyModifiers::CONTROL => {
                return Some(Pressed::Quit);
            }
            KeyCode::Char('q') => return Some(Pressed::Quit),
            KeyCode::Char('+' | '=') => member.slow_down(),
            KeyCode::Char('-') => member.speed_up(),
            KeyCode::Char('x') => member.toggle(),
            KeyCode::Char(digit) => {
                let number = usize::try_from(digit.to_digit(10)?).ok()?;
                self.chosen = number.checked_sub(1).filter(|index| *index < members.len())?;
            }
            _ => return None,
        }
        Some(Pressed::Redraw)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, if it is ours.
fn restore() {
    if OPEN.swap(false, SeqCst) {
        // If it is gone, there is nothing to give back.
        let _ = execute!(io::stdout(), ResetColor, Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// What a panic says would be lost with the alternate screen.
fn restore_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        before(panic);
    }));
}

/// Sends what the terminal says until nobody listens or the terminal is gone.
fn read(events: &UnboundedSender<Event>) {
    while !events.is_closed() {
        match event::poll(LOOK) {
            Ok(false) => {}
            Ok(true) => match event::read() {
                Ok(event) => drop(events.send(event)),
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

fn lay_out(
    picture: &Picture,
    tips: &[Tip],
    chosen: usize,
    width: usize,
    height: usize,
) -> Vec<Line> {
    let blank = || (Tone::Plain, String::new());
    let title = "Gibbon in front of two application servers and two static servers";
    let mut lines = vec![(Tone::Strong, title.into()), blank()];
    lines.push((Tone::Strong, Picture::heads(width)));
    for (index, row) in picture.rows.iter().enumerate() {
        let tone = match (index == chosen, row.alarms()) {
            (true, _) => Tone::Chosen,
            (false, true) => Tone::Alarm,
            (false, false) => Tone::Plain,
        };
        lines.push((tone, picture.row(index, width)));
    }
    lines.extend([blank(), (Tone::Plain, picture.visitors()), (Tone::Plain, picture.sessions())]);
    lines.extend([(Tone::Faint, KEYS.into()), blank()]);
    debug_assert!(lines.len() <= ABOVE, "more lines than counted");
    lines.extend(advise(tips, width, height.saturating_sub(ABOVE)));
    lines.truncate(height);
    lines
}

/// The tips, with what they are for if there is room.
fn advise(tips: &[Tip], width: usize, room: usize) -> Vec<Line> {
    let text = |with: bool| {
        let tip = |tip: &Tip| {
            let says = with.then(|| (Tone::Faint, format!("# {}", tip.says)));
            let command = tips::wrap(&tip.command, width).into_iter().map(|l| (Tone::Plain, l));
            says.into_iter().chain(command).collect::<Vec<_>>()
        };
        tips.iter().flat_map(tip).collect::<Vec<_>>()
    };
    let full = text(true);
    if full.len() <= room { full } else { text(false) }
}

fn paint(lines: &[Line], width: usize, out: &mut Vec<u8>) -> io::Result<()> {
    queue!(out, MoveTo(0, 0))?;
    for (index, (tone, text)) in lines.iter().enumerate() {
        if index > 0 {
            queue!(out, MoveToNextLine(1))?;
        }
        match tone {
            Tone::Plain => {}
            Tone::Strong => queue!(out, SetAttribute(Attribute::Bold))?,
            Tone::Chosen => queue!(out, SetAttribute(Attribute::Reverse))?,
            Tone::Alarm => queue!(out, SetForegroundColor(Color::Red))?,
            Tone::Faint => queue!(out, SetAttribute(Attribute::Dim))?,
        }
        let text: String = text.chars().take(width).collect();
        queue!(out, Print(text), SetAttribute(Attribute::Reset), ResetColor)?;
        queue!(out, Clear(ClearType::UntilNewLine))?;
    }
    queue!(out, Clear(ClearType::FromCursorDown))
}
