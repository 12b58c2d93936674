//! A file replaced under a running process, well and badly.

use std::time::UNIX_EPOCH;

use super::*;

/// London, in the country databases of the corpus.
const LONDON: &str = "81.2.69.142";

pub(in crate::pipeline) fn corpus(name: &str) -> Option<Vec<u8>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = std::env::var_os("INOSEC_CORPUS").map_or(beside, PathBuf::from);
    let file = folder.join("geoip").join(name);
    if file.exists() {
        return Some(std::fs::read(file).expect("readable"));
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "the corpus is missing: set INOSEC_CORPUS");
    println!("NOT TESTED: there is no {}: set INOSEC_CORPUS", file.display());
    None
}

/// The same database with another code for Great Britain.
fn with_britain(bytes: &[u8], code: [u8; 2]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = (0..bytes.len() - 3).filter(|at| bytes[*at..].starts_with(b"\x42GB")).collect();
    places.iter().for_each(|at| bytes[at + 1..at + 3].copy_from_slice(&code));
    bytes
}

/// A folder with one database in it, a keeper of that database, and what lanes would ask.
struct Scene {
    folder: PathBuf,
    path: PathBuf,
    keeper: Keeper,
    current: Current,
    writes: u64,
}

impl Scene {
    async fn with(name: &str, bytes: &[u8]) -> Self {
        let folder = std::env::temp_dir().join(format!("inosec-geo-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        let path = folder.join("country.mmdb");
        std::fs::write(&path, bytes).expect("written");
        let config = config::Geo { country: Some(path.clone()), asn: None, reload: Duration::from_secs(60) };
        let (keeper, current) = Keeper::start(&config).await.expect("started");
        Self { folder, path, keeper, current, writes: 0 }
    }

    /// Writes over the file. The time stamps of two writes may be equal: the clock of files ticks slowly.
    fn overwrite(&mut self, bytes: &[u8]) {
        std::fs::write(&self.path, bytes).expect("written");
        self.writes += 1;
        let file = std::fs::OpenOptions::new().write(true).open(&self.path).expect("open");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(self.writes)).expect("set");
    }

    async fn look(&mut self) {
        self.keeper.look(0).await;
    }

    fn britain(&self) -> String {
        let code = self.current.0.borrow().country(LONDON.parse().expect("an address"));
        code.map_or_else(String::new, |code| String::from_utf8(code.to_vec()).expect("letters"))
    }

    fn trouble(&self) -> Option<&str> {
        self.keeper.files[0].trouble.as_deref()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn a_replaced_file_is_loaded_once_it_lies_still() {
    let Some(bytes) = corpus("GeoLite2-Country-Test.mmdb") else { return };
    let mut scene = Scene::with("replaced", &bytes).await;
    scene.look().await;
    assert_eq!((scene.britain().as_str(), scene.trouble()), ("GB", None));

    scene.overwrite(&with_britain(&bytes, *b"XB"));
    scene.look().await;
    assert_eq!(scene.britain(), "GB", "it may still be written to");
    scene.overwrite(&with_britain(&bytes, *b"XC"));
    scene.look().await;
    assert_eq!(scene.britain(), "GB", "it was");
    scene.look().await;
    assert_eq!(scene.britain(), "XC");

    let renamed = scene.folder.join("new");
    std::fs::write(&renamed, with_britain(&bytes, *b"XD")).expect("written");
    std::fs::rename(&renamed, &scene.path).expect("renamed");
    scene.look().await;
    scene.look().await;
    assert_eq!((scene.britain().as_str(), scene.trouble()), ("XD", None));
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_database_in_force_and_a_good_one_mends_it() {
    let (Some(bytes), Some(asn)) = (corpus("GeoLite2-Country-Test.mmdb"), corpus("GeoLite2-ASN-Test.mmdb"))
    else {
        return;
    };
    let mut scene = Scene::with("bad", &bytes).await;
    let other = with_britain(&bytes, *b"XB");
    for (bad, said) in [(&other[..other.len() / 2], "truncated"), (b"", "truncated"), (&asn, "GeoLite2-ASN")]
    {
        scene.overwrite(bad);
        for _ in 0..3 {
            scene.look().await;
        }
        assert_eq!(scene.britain(), "GB");
        let trouble = scene.trouble().expect("something is wrong");
        assert!(trouble.contains(said), "{trouble}");
    }

    std::fs::remove_file(&scene.path).expect("removed");
    scene.look().await;
    assert!(scene.trouble().is_some_and(|trouble| trouble.contains("No such file")), "{:?}", scene.trouble());
    std::fs::create_dir(&scene.path).expect("made");
    scene.look().await;
    assert_eq!(scene.trouble(), Some("not a regular file"));
    assert_eq!(scene.britain(), "GB");
    std::fs::remove_dir(&scene.path).expect("removed");

    scene.overwrite(&other);
    scene.look().await;
    scene.look().await;
    assert_eq!((scene.britain().as_str(), scene.trouble()), ("XB", None));
}

#[tokio::test]
async fn a_fault_at_the_start_names_key_and_file() {
    let path = std::env::temp_dir().join(format!("inosec-geo-none-{}", std::process::id()));
    let config = config::Geo { country: None, asn: Some(path.clone()), reload: Duration::from_secs(60) };
    let error = Keeper::start(&config).await.expect_err("there is no file").to_string();
    assert!(error.starts_with("geo.asn: ") && error.contains(&path.display().to_string()), "{error}");
    std::fs::write(&path, b"no database").expect("written");
    let error = Keeper::start(&config).await.expect_err("it is none").to_string();
    assert!(error.contains("no MaxMind database") && error.contains(".mmdb"), "{error}");
    std::fs::remove_file(&path).expect("removed");
}
