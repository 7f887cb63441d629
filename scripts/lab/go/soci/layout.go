package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/awslabs/soci-snapshotter/soci"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	ctdarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"
	"oras.land/oras-go/v2/content/oci"
)

// layout is a copy of an OCI image layout with one image, opened for the library's index builder.
type layout struct {
	directory, scratch string
	image              images.Image
	contents           content.Store
	blobs              *oci.Store
	builder            *soci.IndexBuilder
}

// open copies the layout, a directory or a tar, into a temporary directory and opens it there.
func open(ctx context.Context, source string, command *cli.Command) (*layout, error) {
	in := &layout{}
	var err error
	if in.directory, err = os.MkdirTemp("", "soci-oci-*"); err != nil {
		return nil, err
	}
	if in.scratch, err = os.MkdirTemp("", "soci-artifacts-*"); err != nil {
		return nil, err
	}
	if err := in.load(ctx, source, command); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

func (in *layout) load(ctx context.Context, source string, command *cli.Command) error {
	if err := unpack(ctx, source, in.directory); err != nil {
		return err
	}
	target, err := in.top()
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	in.image = images.Image{Name: source, Target: target}
	if in.blobs, err = oci.New(in.directory); err != nil {
		return err
	}
	if in.contents, err = local.NewStore(in.directory); err != nil {
		return err
	}
	in.builder, err = builder(in, in.scratch, command)
	return err
}

func (in *layout) close() {
	os.RemoveAll(in.directory)
	os.RemoveAll(in.scratch)
}

func unpack(ctx context.Context, source, directory string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("failed to access input %s: %w", source, err)
	}
	if info.IsDir() {
		return os.CopyFS(directory, os.DirFS(source))
	}
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = ctdarchive.Apply(ctx, directory, file, ctdarchive.WithNoSameOwner())
	return err
}

// top is what the layout's index.json names: a manifest, or an index. Manifests that are not there are left out of an
// index, which is written anew for that; a single one that is left stands for itself.
func (in *layout) top() (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := in.read("index.json", &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	isNested := len(index.Manifests) == 1 && images.IsIndexType(index.Manifests[0].MediaType)
	if len(index.Manifests) == 1 && !isNested {
		return index.Manifests[0], nil
	}
	list := index
	if isNested {
		list = ocispec.Index{} // not over what index holds
		if err := in.read(blobName(index.Manifests[0].Digest), &list); err != nil {
			return ocispec.Descriptor{}, err
		}
		list.MediaType = index.Manifests[0].MediaType
	}
	var present []ocispec.Descriptor
	for _, manifest := range list.Manifests {
		if _, err := os.Stat(filepath.Join(in.directory, blobName(manifest.Digest))); err == nil {
			present = append(present, manifest)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return ocispec.Descriptor{}, err
		}
	}
	switch {
	case len(present) == 0:
		return ocispec.Descriptor{}, errors.New("manifest list contains no entries with available blobs")
	case len(present) == 1 && images.IsManifestType(present[0].MediaType):
		return present[0], nil
	case isNested && len(present) == len(list.Manifests):
		return index.Manifests[0], nil
	}
	if list.MediaType == "" {
		list.MediaType = ocispec.MediaTypeImageIndex
	}
	list.Manifests = present
	text, err := json.Marshal(list)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	written := ocispec.Descriptor{MediaType: list.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return written, os.WriteFile(filepath.Join(in.directory, blobName(written.Digest)), text, 0o644)
}

func (in *layout) read(name string, into any) error {
	text, err := os.ReadFile(filepath.Join(in.directory, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// copyTo writes the layout to a directory, in the place of what is there, with one image in its index.json.
func (in *layout) copyTo(directory string, top ocispec.Descriptor) error {
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	if err := os.CopyFS(directory, os.DirFS(in.directory)); err != nil {
		return err
	}
	text, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{top},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "index.json"), text, 0o644)
}

func blobName(of digest.Digest) string {
	return filepath.Join("blobs", of.Algorithm().String(), of.Encoded())
}

// prefetchedFiles are the paths that the flags name, one by one or as a JSON list in a file.
func prefetchedFiles(command *cli.Command) ([]string, error) {
	named := command.StringSlice("prefetch-file")
	if file := command.String("prefetch-files-json"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("failed to load prefetch files from JSON: failed to read JSON file: %w", err)
		}
		var listed []string
		if err := json.Unmarshal(text, &listed); err != nil {
			return nil, fmt.Errorf("failed to load prefetch files from JSON: failed to parse JSON: %w", err)
		}
		named = append(named, listed...)
	}
	var files []string
	for _, file := range named {
		if file = strings.TrimSpace(file); file != "" {
			files = append(files, file)
		}
	}
	return files, nil
}
