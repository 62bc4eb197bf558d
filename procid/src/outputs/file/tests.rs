use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits { size: 100, keep: 2 };

fn line(text: &str) -> Line {
    format!("{text}\n").into_bytes().into()
}

fn write_all(file: &mut Rotating, lines: &[Line]) {
    let mut tally = Tally::default();
    file.write(lines, &mut tally).unwrap();
    assert_eq!(tally.done(), lines.len());
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    Place {
        path: directory.path().join("records"),
        _directory: directory,
    }
}

#[test]
fn the_file_is_its_owners_and_goes_on_where_it_ended() {
    let place = place();
    fs::write(&place.path, "old\n").unwrap();
    fs::set_permissions(&place.path, Permissions::from_mode(0o644)).unwrap();
    let mut file = Rotating::open(&place.path, SMALL).unwrap();
    write_all(&mut file, &[line("new")]);
    assert_eq!(read(&place.path), "old\nnew\n");
    assert_eq!(fs::metadata(&place.path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn what_a_crash_has_torn_stays_a_line_of_its_own() {
    let place = place();
    fs::write(&place.path, "{\"torn\":").unwrap();
    let mut file = Rotating::open(&place.path, SMALL).unwrap();
    write_all(&mut file, &[line("1")]);
    write_all(&mut file, &[line("2")]);
    assert_eq!(read(&place.path), "{\"torn\":\n1\n2\n");
}

#[test]
fn the_oldest_goes() {
    let place = place();
    let mut file = Rotating::open(&place.path, SMALL).unwrap();
    let number = |n: usize| line(&n.to_string().repeat(60));
    for n in 1..=5 {
        write_all(&mut file, &[number(n)]);
    }
    let aside = |n| read(&file.aside(n)).into_bytes();
    assert_eq!(read(&place.path).into_bytes(), *number(5));
    assert_eq!(aside(1), *number(4));
    assert_eq!(aside(2), *number(3));
    assert!(!file.aside(3).exists());
    assert_eq!(fs::metadata(file.aside(1)).unwrap().mode() & 0o777, 0o600);
}

/// As logrotate does it, with `create` and without.
#[test]
fn a_file_that_is_moved_away_is_begun_anew() {
    let place = place();
    let mut file = Rotating::open(&place.path, SMALL).unwrap();
    let moved = place.path.with_extension("moved");
    write_all(&mut file, &[line("1")]);
    fs::rename(&place.path, &moved).unwrap();
    write_all(&mut file, &[line("2")]);
    assert_eq!(
        (read(&moved), read(&place.path)),
        ("1\n".to_owned(), "2\n".to_owned())
    );
    fs::rename(&place.path, &moved).unwrap();
    fs::write(&place.path, "").unwrap();
    write_all(&mut file, &[line("3")]);
    assert_eq!(read(&place.path), "3\n");
    // With `copytruncate`: no hole is left where the old lines were.
    OpenOptions::new()
        .write(true)
        .open(&place.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    write_all(&mut file, &[line("4")]);
    assert_eq!(read(&place.path), "4\n");
}

#[test]
fn what_is_not_a_file_of_its_own_is_refused() {
    let place = place();
    let refused = |words: &str| {
        let said = Rotating::open(&place.path, SMALL).unwrap_err().to_string();
        assert!(said.starts_with("cannot open /"), "{said}");
        assert!(said.contains(words), "{said}");
    };
    std::os::unix::fs::symlink("/dev/null", &place.path).unwrap();
    refused("symbolic links");
    fs::remove_file(&place.path).unwrap();
    fs::create_dir(&place.path).unwrap();
    refused("directory");
    fs::remove_dir(&place.path).unwrap();
    let kept = Rotating::open(&place.path, SMALL).unwrap();
    refused("another process has locked it");
    drop(kept);
    Rotating::open(&place.path, SMALL).unwrap();
    let nowhere = Rotating::open(&place.path.join("x"), SMALL);
    assert!(nowhere.is_err());
}

proptest! {
    /// However records are handed over and whatever their length: each is in one
    /// file, whole and in order, and only the oldest are gone.
    #[test]
    fn no_record_is_split_or_lost(
        batches in prop::collection::vec(prop::collection::vec(0_usize..150, 1..5), 1..12),
        keep in 1_u32..4,
    ) {
        let place = place();
        let limits = Limits { size: 100, keep };
        let mut file = Rotating::open(&place.path, limits).unwrap();
        let mut all = Vec::new();
        for lengths in &batches {
            let lines: Vec<Line> = lengths.iter().map(|length| {
                let text = format!("{}:{}", all.len(), "x".repeat(*length));
                all.push(text.clone());
                line(&text)
            }).collect();
            write_all(&mut file, &lines);
        }
        let mut found = Vec::new();
        for number in (1..=keep + 1).rev() {
            let path = file.aside(number);
            prop_assert!(number <= keep || !path.exists());
            if path.exists() {
                let text = read(&path);
                prop_assert!(text.len() <= 100 || text.lines().count() == 1);
                found.extend(text.lines().map(str::to_owned));
            }
        }
        found.extend(read(&place.path).lines().map(str::to_owned));
        prop_assert!(found.len() == all.len() || file.aside(keep).exists());
        prop_assert_eq!(&found[..], &all[all.len() - found.len()..]);
    }
}
