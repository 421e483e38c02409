//! A store file with any damage: what is read is what was written, or the store says `Corrupt`. A file that is trusted
//! unread may mislead, but neither panics nor hangs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{collections::BTreeMap, ops::ControlFlow, sync::LazyLock};
use zo_store::{Options, Scan, Store, Table, fault::FaultDisk};
use zo_traits::{ErrorKind, Result};

const TABLES: [Table; 2] = [Table::new("one"), Table::new("two")];

type Rows = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

/// A store closed in good order, the same when the power goes, and what is in both.
struct Base {
    images: [Vec<u8>; 2],
    rows: Rows,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let mut rows = Rows::new();
    for t in 0..2usize {
        for i in 0..60u32 {
            rows.insert((t, i.to_be_bytes().to_vec()), i.to_be_bytes().repeat((i as usize * 7 + t) % 40));
        }
    }
    rows.insert((1, b"large".to_vec()), vec![7; 9_000]);
    let disk = FaultDisk::new();
    let store = Store::open_with_backend(disk.clone(), Options::default()).expect("a new store");
    for part in 0..3 {
        let rows = rows.clone();
        let written = store.write_blocking(move |tx| {
            for (i, ((t, k), v)) in rows.iter().enumerate() {
                if i % 3 <= part {
                    tx.put(TABLES[*t], k, v)?;
                }
            }
            Ok(())
        });
        written.expect("a write");
    }
    let crashed = disk.image();
    drop(store);
    Base { images: [disk.image(), crashed], rows }
});

fn read_all(store: &Store) -> Result<Rows> {
    let snapshot = store.snapshot()?;
    let mut found = Rows::new();
    for (t, table) in TABLES.into_iter().enumerate() {
        snapshot.scan(table, &Scan::all(), |k, v| {
            found.insert((t, k.to_vec()), v.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        snapshot.scan(table, &Scan::prefix(&[0]).reverse().limit(3), |_, _| Ok(ControlFlow::Continue(())))?;
        snapshot.get(table, b"large")?;
        snapshot.len(table)?;
    }
    Ok(found)
}

/// Applies edits of five bytes and more: where (three bytes, over the image or over its header), how, and with what.
fn damage(image: &mut Vec<u8>, mut edits: &[u8]) {
    while let Some((head, rest)) = edits.split_first_chunk::<5>() {
        edits = rest;
        let [a, b, c, how, n] = *head;
        let wide = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let room = if how & 0x80 == 0 { image.len().min(512) } else { image.len() };
        if room == 0 {
            return;
        }
        let at = wide % room;
        let end = (at + usize::from(n).max(1)).min(image.len());
        match how % 8 {
            0 => image[at] ^= n,
            1 => image[at] = n,
            2 => image[at..end].fill(0),
            3 => image[at..end].fill(0xff),
            4 => {
                // The bytes that follow, as they are.
                let n = edits.len().min(usize::from(n)).min(image.len() - at);
                image[at..at + n].copy_from_slice(&edits[..n]);
                edits = &edits[n..];
            }
            5 => {
                // A piece of the file over another one: what a lost or misdirected write leaves.
                let from = (wide / 7) % image.len();
                let len = (usize::from(n) * 64).min(image.len() - at.max(from));
                image.copy_within(from..from + len, at);
            }
            6 => image.truncate(at),
            _ => image.resize(image.len() + usize::from(n) * 64, a),
        }
    }
}

fuzz_target!(
    init: {
        // The engine panics over some damage and the store catches that, which libFuzzer's own hook would not let it. A
        // panic that does escape still ends the run.
        std::panic::set_hook(Box::new(|_| {}));
        LazyLock::force(&BASE);
    },
    |data: &[u8]| {
        let Some((&mode, edits)) = data.split_first() else { return };
        let image = match mode % 3 {
            2 => edits.to_vec(),
            base => {
                let mut image = BASE.images[usize::from(base)].clone();
                damage(&mut image, edits);
                image
            }
        };
        let trusted = mode & 0x80 != 0;
        let empty = image.is_empty();
        let limit = if trusted { 0 } else { u64::MAX };
        let disk = FaultDisk::with_image(image);
        // Damage must not make it grow without bound either.
        disk.set_capacity(Some(64 << 20));
        let outcome = Store::open_with_backend(disk, Options::default().verify_limit(limit)).and_then(|store| {
            let found = read_all(&store)?;
            let written = store.write_blocking(|tx| {
                tx.put(TABLES[0], b"after", &[1; 5000])?;
                tx.delete(TABLES[1], b"large")
            });
            written?;
            if !trusted {
                assert!(store.read(|s| s.contains(TABLES[0], b"after"))?, "an acknowledged write is gone");
            }
            Ok(found)
        });
        match outcome {
            Ok(found) if !trusted => {
                let ours = found.iter().all(|(k, v)| BASE.rows.get(k) == Some(v));
                // Of a torn file the commit before the last may be what is left, but never nothing at all.
                assert!(ours && (empty || !found.is_empty()), "wrong data: {} rows", found.len());
            }
            Ok(_) => {}
            Err(e) => assert!(
                matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                "damage was reported as {e:?}"
            ),
        }
    }
);
