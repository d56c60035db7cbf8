//! The pages of runs in a real browser: light and dark, wide and narrow.
//!
//! Not part of a plain `cargo test`, because it needs Chromium (Debian's package `chromium`): `cargo test
//! --test browser`. The pages are those of `tests/pages`, which real runs have left.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    io::BufReader,
    path::Path,
    process::{Command, Stdio},
};

use pgherd::report::KeptRun;

/// The colour of the critical path, and of acknowledged writes.
const CRITICAL: ([u8; 3], [u8; 3]) = ([0x1f, 0x5f, 0xbf], [0x7d, 0xb1, 0xff]);
const PAPER: ([u8; 3], [u8; 3]) = ([0xfd, 0xfd, 0xfc], [0x14, 0x16, 0x1a]);

fn page(name: &str) -> String {
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages");
    KeptRun::read(&runs.join(name)).unwrap().html()
}

struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn count(&self, colour: [u8; 3]) -> usize {
        self.pixels.iter().filter(|pixel| **pixel == colour).count()
    }

    /// Whether anything is drawn to the right of `x`, on paper of the first corner's colour.
    fn reaches(&self, x: usize) -> bool {
        let mut rows = self.pixels.chunks(self.width);
        rows.any(|row| {
            row[x..]
                .iter()
                .any(|pixel| *pixel != self.pixels[self.width - 1])
        })
    }
}

/// Makes Chromium draw a page in a window of this size.
fn draw(page: &str, width: u32, height: u32, dark: bool) -> Picture {
    let folder = tempfile::tempdir().unwrap();
    let (file, picture) = (
        folder.path().join("page.html"),
        folder.path().join("page.png"),
    );
    fs::write(&file, page).unwrap();
    let output = Command::new("chromium")
        // Containers do not allow its sandbox. The page is our own, and has no scripts.
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        // It must draw a file and connect to nothing.
        .args([
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .args(["--disable-component-update", "--disable-sync"])
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!dark)
        ))
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", file.display()))
        .stdin(Stdio::null())
        .output()
        .expect("the package chromium is there");
    assert!(
        picture.exists(),
        "chromium drew nothing: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let decoder = png::Decoder::new(BufReader::new(fs::File::open(&picture).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    assert_eq!((info.width, info.height), (width, height));
    let samples = info.color_type.samples();
    Picture {
        width: info.width as usize,
        pixels: bytes[..info.buffer_size()]
            .chunks(samples)
            .map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect(),
    }
}

#[test]
fn pages_are_drawn_light_and_dark() {
    for name in ["up", "drill"] {
        let page = page(name);
        for dark in [false, true] {
            let drawn = draw(&page, 1000, 1600, dark);
            let of = |(light, night)| if dark { night } else { light };
            let (paper, critical) = (drawn.count(of(PAPER)), drawn.count(of(CRITICAL)));
            let all = drawn.pixels.len();
            assert!(
                paper > all / 3,
                "{name}, dark {dark}: {paper} of {all} are paper"
            );
            assert!(
                critical > 2000,
                "{name}, dark {dark}: {critical} mark the path"
            );
        }
    }
}

#[test]
fn nothing_hangs_over_the_edge_of_a_phone() {
    // A window is never narrower than 500 pixels, so the page is made narrow inside it.
    let narrow = |page: &str| {
        let style = "html { background: #fdfdfc; } body { width: 360px; margin: 0; } </style>";
        draw(&page.replacen("</style>", style, 1), 500, 3000, false)
    };
    for name in ["up", "drill"] {
        let page = page(name).replace("<details>", "<details open>");
        assert!(narrow(&page).reaches(300), "{name} is drawn at all");
        assert!(!narrow(&page).reaches(361), "{name} hangs over the edge");
    }
    let wide = "<body><p style=\"width: 400px; background: red\">x</p>";
    assert!(narrow(&page("up").replacen("<body>", wide, 1)).reaches(361));
}
